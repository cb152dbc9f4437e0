"""Protections against what comes from outside, taken out one by one: bombs, files that are none, and code."""

from __future__ import annotations

from .mutation import Mutation

DATA, ARTEFACTS, CODE, TEXT, MORE = (
    f"reliability/test_{name}.py"
    for name in ("data_hostile", "artefacts_hostile", "code_in_runs", "text_hostile", "kinds_hostile")
)
FILES, PAGE, KINDS = (f"unit/test_{name}.py" for name in ("core_files", "use_report", "data_kinds"))
BOMBS = f"{DATA}::test_bombs_of_every_packing_are_refused_once_they_pass_their_bound"

BOMB_MUTATIONS = [
    Mutation(
        "trust: pictures of any size are decoded",
        "data/kinds/image.py",
        "max(1.0, found.channels / 4) > limits.pixels:",
        "max(1.0, found.channels / 4) < 0:",
        f"{KINDS}::test_bombs_are_refused_by_their_header",
    ),
    Mutation(
        "trust: channels do not count as pixels",
        "data/kinds/image.py",
        "math.prod(found.extent) * max(1.0, found.channels / 4) >",
        "math.prod(found.extent) >",
        f"{KINDS}::test_bombs_are_refused_by_their_header",
    ),
    Mutation(
        "trust: files of any size are read",
        "data/sources/place.py",
        "if limit is not None and wanted > limit:",
        "if limit is not None and wanted < 0:",
        f"{DATA}::test_files_over_the_size_limit_are_not_read",
    ),
    Mutation(
        "trust: cells of any size are read",
        "data/sources/manifest.py",
        "if len(content) > limits.file_bytes:",
        "if len(content) < 0:",
        f"{DATA}::test_cells_over_the_size_limit_are_not_read",
    ),
    Mutation(
        "trust: archives with any number of members",
        "core/archives.py",
        "if (size := _directory_bytes(file)) > DIRECTORY_BYTES:",
        "if (size := _directory_bytes(file)) < 0:",
        f"{DATA}::test_an_archive_of_endlessly_many_members_is_refused_before_they_are_read",
    ),
    Mutation(
        "trust: weights that unpack to anything",
        "core/archives.py",
        "if unpacked > (size := file.seek(0, os.SEEK_END)):",
        "if unpacked < (size := 0):",
        f"{ARTEFACTS}::test_weights_that_unpack_to_anything_are_refused",
    ),
    Mutation(
        "trust: arrays that unpack to anything", "data/sources/arrays.py", "if needed > memory() / 2:", "if needed < 0:", BOMBS
    ),
    Mutation(
        "trust: arrays larger than their archive says",
        "data/kinds/formats/npy.py",
        "if min(shape, default=0) < 0 or start + math.prod(shape) * dtype.itemsize != size:",
        "if min(shape, default=0) < 0:",
        f"{DATA}::test_an_archive_that_claims_too_much_is_refused",
    ),
    Mutation(
        "trust: tables that unpack to anything", "data/sources/manifest.py", "if size > memory() // 4:", "if size < 0:", BOMBS
    ),
    Mutation("trust: data sets that unpack to anything", "data/sources/huggingface.py", "> PACKED_BYTES:", "< 0:", BOMBS),
    Mutation(
        "trust: pieces of a TIFF that unpack to anything",
        "data/kinds/formats/tiff.py",
        "page.nbytes + 1)) > page.nbytes:",
        "page.nbytes + 1)) < 0:",
        f"{DATA}::test_a_tiff_whose_pixels_unpack_to_anything_is_refused",
    ),
    Mutation(
        "trust: pieces of HDF5 that unpack to anything",
        "data/kinds/formats/hdf5.py",
        "room + 1)) > room:",
        "room + 1)) < 0:",
        f"{MORE}::test_a_piece_of_hdf5_that_unpacks_to_anything_is_refused_before_it_is_unpacked",
    ),
    Mutation(
        "trust: HDF5 packed over and over",
        "data/kinds/formats/hdf5.py",
        "for code in filters) > 1:",
        "for code in filters) < 0:",
        f"{MORE}::test_hdf5_that_is_packed_twice_is_refused",
    ),
    Mutation(
        "trust: HDF5 in any number of pieces",
        "data/kinds/formats/hdf5.py",
        "if math.prod(map(len, axes)) > MOST_PIECES:",
        "if math.prod(map(len, axes)) < 0:",
        f"{MORE}::test_hdf5_in_millions_of_pieces_is_refused_and_its_parts_are_read",
    ),
    Mutation(
        "trust: films of any length",
        "data/kinds/formats/tiff.py",
        "if len(seen) > MOST_PAGES:",
        "if len(seen) < 0:",
        f"{DATA}::test_a_tiff_of_endlessly_many_pages_is_refused_at_once",
    ),
    Mutation(
        "trust: shards with any number of members",
        "data/sources/shards.py",
        "if number > MEMBERS_OF_A_SHARD:",
        "if number < 0:",
        f"{DATA}::test_a_shard_of_endlessly_many_members_is_listed_up_to_a_bound",
    ),
    Mutation(
        "trust: packed shards are unpacked",
        "data/sources/shards.py",
        'mode="r:")',
        'mode="r:*")',
        f"{DATA}::test_a_packed_or_foreign_shard_is_refused_with_advice",
    ),
]

FOREIGN_MUTATIONS = [
    Mutation(
        "trust: devices are opened",
        "core/files.py",
        "if not stat.S_ISREG(os.fstat(descriptor).st_mode):",
        "if stat.S_ISSOCK(os.fstat(descriptor).st_mode):",
        f"{FILES}::test_a_pipe_and_a_device_are_not_opened_and_nobody_waits",
    ),
    Mutation(
        "trust: pipes and devices in a folder are samples",
        "data/sources/folder.py",
        "                elif store or entry.is_file():",
        "                elif store or not entry.is_dir():",
        f"{DATA}::test_pipes_sockets_devices_and_loops_are_no_samples_and_block_nothing",
    ),
    Mutation(
        "trust: a plate's wells lie anywhere",
        "data/kinds/formats/zarr_words.py",
        "STEP.fullmatch(step) for path",
        "step for path",
        "unit/test_formats_zarr.py::test_a_plate_leads_nowhere_but_into_itself",
    ),
    Mutation(
        "trust: links of a plate lead out of it",
        "data/kinds/formats/zarr_words.py",
        "os.path.realpath(store)",
        "os.path.realpath(root)",
        "unit/test_formats_zarr.py::test_links_of_a_plate_are_neither_followed_out_of_it_nor_round_and_round",
    ),
    Mutation(
        "trust: folders are entered as often as links lead to them",
        "data/sources/folder.py",
        "if (facts.st_dev, facts.st_ino) in seen:",
        "if not facts:",
        "unit/test_data_sources.py::test_odd_names_and_links_are_survived",
    ),
    Mutation(
        "trust: links in a shard are samples",
        "data/sources/shards.py",
        "if not member.isreg() or member.sparse is not None:",
        "if member.isdir() or member.sparse is not None:",
        f"{DATA}::test_nothing_of_a_shard_is_written_anywhere_and_links_and_devices_in_it_are_no_samples",
    ),
    Mutation(
        "trust: sizes below 0 in a shard lead back",
        "data/sources/shards.py",
        "if member.size < 0:",
        "if not member:",
        f"{DATA}::test_a_member_of_negative_size_does_not_lead_back_for_ever",
    ),
    Mutation(
        "trust: a saved data set may lead out of its folder",
        "data/sources/huggingface.py",
        'posixpath.basename(name) != name or name in ("", ".", "..")',
        'name == ""',
        f"{DATA}::test_a_saved_data_set_reads_no_file_outside_itself",
    ),
    Mutation(
        "trust: captions may lead out of their folder",
        "use/artefacts.py",
        "if Path(name).name != name:",
        "if not name:",
        f"{PAGE}::test_captions_lead_to_no_picture_elsewhere",
    ),
    Mutation(
        "trust: URLs in data lead anywhere",
        "data/sources/place.py",
        'if "::" in name or name.partition("://")[0] not in REMOTE:',
        "if not name:",
        f"{DATA}::test_urls_in_data_lead_to_servers_and_stores_and_through_nothing_else",
    ),
    Mutation(
        "trust: a TIFF leads to the files that it names",
        "data/kinds/formats/tiff.py",
        "_multifile=False",
        "_multifile=True",
        f"{DATA}::test_a_tiff_opens_no_other_file_that_its_description_names",
    ),
    Mutation(
        "trust: pictures with NaN are trained on",
        "data/kinds/image.py",
        "if array.dtype == np.float32 and not np.isfinite(array).all():",
        "if array.dtype == np.float32 and not array.size:",
        f"{DATA}::test_floats_that_are_no_numbers_are_never_shown_to_anybody",
    ),
    Mutation(
        "trust: JSON without a bottom is a traceback",
        "core/files.py",
        "except (ValueError, RecursionError) as problem:",
        "except ValueError as problem:",
        f"{ARTEFACTS}::test_json_without_a_bottom_is_refused_in_one_line",
    ),
    Mutation(
        "trust: JSON of any depth reaches a parser that follows it to the end of the process",
        "data/sources/manifest.py",
        "> DEEPEST and _depth(line) > DEEPEST:",
        "< 0 and _depth(line) > DEEPEST:",
        f"{DATA}::test_json_nested_without_end_does_not_end_the_process",
    ),
    Mutation(
        "trust: merges of a tokenizer are cut beyond their end",
        "data/text/tokenizer.py",
        "if not prefix.isascii() or not all(half.startswith(prefix) for half in halves):",
        "if not prefix:",
        f"{TEXT}::test_merges_that_would_end_the_process_are_refused_before_the_library_sees_them",
    ),
    Mutation(
        "trust: a tokenizer is not the one that was looked at",
        "data/text/tokenizer.py",
        "return json.dumps(parsed)",
        "return content",
        f"{TEXT}::test_what_is_looked_at_is_what_the_library_reads",
    ),
    Mutation(
        "trust: pairs are learned from words of any length",
        "data/text/tokenizer.py",
        "clean(text)[:LEARNED_FROM]",
        "clean(text)",
        f"{TEXT}::test_a_word_of_a_million_letters_is_learned_from_as_far_as_that_is_quick",
    ),
    Mutation(
        "trust: a panic of the tokenizer passes",
        "data/text/tokenizer.py",
        "except BaseException as problem:",
        "except Exception as problem:",
        f"{TEXT}::test_a_panic_of_the_library_is_an_error_in_one_line",
    ),
    Mutation(
        "trust: checkpoints are unpickled",
        "train/checkpoint.py",
        "weights_only=True, mmap=True",
        "weights_only=False, mmap=True",
        f"{ARTEFACTS}::test_a_pickle_among_weights_is_never_opened",
    ),
    Mutation(
        "trust: features are unpickled",
        "use/embed_files.py",
        "vectors = np.load(path, allow_pickle=False)",
        "vectors = np.load(path, allow_pickle=True)",
        f"{ARTEFACTS}::test_a_pickle_among_features_is_never_opened",
    ),
    Mutation(
        "trust: a flipped bit passes",
        "train/checkpoint.py",
        "archives.refuse_damaged(path)",
        "archives.archive(path.open('rb')).close()",
        f"{ARTEFACTS}::test_a_flipped_bit_in_a_checkpoint_is_noticed",
    ),
    Mutation(
        "trust: encoders larger than their weights are built",
        "use/run.py",
        "if expected is not None and expected != found:",
        "if expected is not None and not found:",
        f"{ARTEFACTS}::test_an_encoder_larger_than_its_weights_is_never_built",
    ),
    Mutation(
        "trust: code that nobody named is executed",
        "train/trust.py",
        "if path.is_file() and not _mark(path).is_file():",
        "if not path.exists():",
        f"{CODE}::test_code_is_executed_for_who_named_it_and_refused_in_a_run_from_elsewhere",
    ),
    Mutation(
        "trust: code is known by its place, not its content",
        "train/trust.py",
        "hashlib.sha256(path.read_bytes()).hexdigest()",
        "hashlib.sha256(bytes(path.absolute())).hexdigest()",
        f"{CODE}::test_changed_code_is_asked_about_again",
    ),
]
