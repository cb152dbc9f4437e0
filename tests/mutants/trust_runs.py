"""Protections of runs, taken out one by one: whole files, one writer, full disks, signals, and going on exactly."""

from __future__ import annotations

from .mutation import Mutation

INTERRUPTION, EXACT, DISK = (f"reliability/test_{name}.py" for name in ("interruption", "interruption_exact", "disk"))
FILES, STORE, LOADER = (f"unit/test_{name}.py" for name in ("core_files", "data_store", "data_loader"))
SOURCES, EMBED = (f"unit/test_{name}.py" for name in ("data_sources", "use_embed"))

FILE_MUTATIONS = [
    Mutation(
        "trust: files written in place",
        "core/files.py",
        "        file, temporary = _beside(path)\n        with file:",
        '        file, temporary = open(path, "w+b"), path\n        with file:',
        f"{FILES}::test_a_block_that_fails_leaves_the_file_as_it_was",
    ),
    Mutation(
        "trust: what could not be written to its end stays there",
        "core/files.py",
        "                with suppress(OSError):\n                    os.unlink(temporary)\n                raise",
        "                raise",
        f"{FILES}::test_a_block_that_fails_leaves_the_file_as_it_was",
    ),
    Mutation(
        "trust: checkpoints written in place",
        "train/checkpoint.py",
        "with files.replacing(path) as file:",
        'path.parent.mkdir(exist_ok=True)\n    with open(path, "wb") as file:',
        f"{INTERRUPTION}::test_a_checkpoint_that_is_cut_off_leaves_the_one_before",
    ),
    Mutation(
        "trust: no lock is taken",
        "core/files.py",
        "            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)\n        except BlockingIOError:",
        "            pass\n        except BlockingIOError:",
        f"{INTERRUPTION}::test_a_second_process_in_the_same_folder_is_refused",
    ),
    Mutation(
        "trust: two embed into one file",
        "use/embed.py",
        'with locked(parts_folder / "lock", partial(_refuse, path)):',
        'with locked(parts_folder / f"lock-{id(encode)}", partial(_refuse, path)):',
        f"{EMBED}::test_two_calls_do_not_write_one_file_at_the_same_time",
    ),
    Mutation(
        "trust: names too long to be written beside",
        "core/files.py",
        'temporary = path.with_name(f".{path.name[:40]}.{number}.part")',
        'temporary = path.with_name(f".{path.name}.{number}.part")',
        f"{FILES}::test_a_name_as_long_as_the_system_allows_is_written",
    ),
    Mutation(
        "trust: a full disk is a traceback",
        "core/files.py",
        '    errno.ENOSPC: "free some room",\n',
        "",
        f"{DISK}::test_a_full_disk_at_the_very_start_leaves_a_folder_that_can_be_begun_in",
    ),
    Mutation(
        "trust: a full disk does not say how to go on",
        "train/folder.py",
        'raise TacitError(f"{problem}; then {go_on}") from problem',
        "raise",
        f"{DISK}::test_a_full_disk_costs_nothing_but_the_time_since_the_last_checkpoint[last.pt]",
    ),
    Mutation(
        "trust: a read-only disk is a traceback",
        "core/files.py",
        '    errno.EROFS: "make it writable, or choose another place",\n',
        "",
        f"{FILES}::test_a_place_that_may_not_be_written_to_is_named",
    ),
    Mutation(
        "trust: data that is gone is called broken",
        "data/decoder.py",
        "            self._refuse_gone()\n",
        "",
        f"{DISK}::test_data_that_vanishes_stops_the_run_and_is_not_called_broken",
    ),
    Mutation(
        "trust: any share of bad samples will do",
        "data/skipped.py",
        "if len(bad) <= max_bad * looked_at:",
        "if len(bad) <= looked_at:",
        "unit/test_use_evaluate.py::test_more_bad_samples_are_allowed_where_somebody_says_so",
    ),
]

RESUME_MUTATIONS = [
    Mutation(
        "trust: signals are not heard",
        "train/loop.py",
        "        self._signal = number",
        "        self._signal = 0 * number",
        f"{INTERRUPTION}::test_a_signal_leaves_a_checkpoint_and_says_how_to_go_on",
    ),
    Mutation(
        "trust: a signal outside the steps is a traceback",
        "core/signals.py",
        "except (KeyboardInterrupt, Signalled) as stop:",
        "except KeyboardInterrupt as stop:",
        f"{INTERRUPTION}::test_a_signal_outside_the_steps_ends_in_one_line_too",
    ),
    Mutation(
        "trust: a second Ctrl-C waits like the first",
        "core/signals.py",
        "if asked and number == signal.SIGINT:",
        "if asked and not number:",
        f"{INTERRUPTION}::test_a_second_ctrl_c_ends_at_once",
    ),
    Mutation(
        "trust: nohup is overruled",
        "core/signals.py",
        "if signal.getsignal(number) is signal.SIG_IGN:",
        "if signal.getsignal(number) is None:",
        f"{INTERRUPTION}::test_a_signal_that_was_switched_off_stays_off",
    ),
    Mutation(
        "trust: tables are not cut back",
        "train/folder.py",
        "file.truncate(length)",
        "file.truncate()",
        f"{INTERRUPTION}::test_a_killed_run_goes_on_without_a_break",
    ),
    Mutation(
        "trust: a table that lost rows is gone on with",
        "train/folder.py",
        "if not path.is_file() or path.stat().st_size < length:",
        "if not path.is_file():",
        f"{INTERRUPTION}::test_a_table_that_lost_rows_is_named",
    ),
    Mutation(
        "trust: a run without a checkpoint cannot go on",
        "train/session.py",
        "    if folder.last.exists():\n        loop.restore()",
        "    if folder.log.exists():\n        loop.restore()",
        f"{INTERRUPTION}::test_a_run_killed_before_its_first_checkpoint_starts_again",
    ),
    Mutation(
        "trust: a run that starts again keeps its old rows",
        "train/folder.py",
        "            path.unlink(missing_ok=True)\n        self._file",
        "            pass\n        self._file",
        f"{INTERRUPTION}::test_rows_from_before_the_first_checkpoint_are_not_kept",
    ),
    Mutation(
        "trust: what was skipped is forgotten",
        "train/loop.py",
        '            self.loader.skipped.update(content["skipped"])\n',
        "",
        f"{EXACT}::test_what_was_skipped_before_the_interruption_is_still_known_after_it",
    ),
    Mutation(
        "trust: changed data is gone on with",
        "train/pretrain.py",
        'if collection.fingerprint != config["data"]["fingerprint"]:',
        'if not config["data"]["fingerprint"]:',
        f"{INTERRUPTION}::test_changed_data_is_not_gone_on_with",
    ),
    Mutation(
        "trust: times do not count as changes of data",
        "data/index.py",
        'for name in ("path", "offset", "size", "mtime", "content", "caption"):',
        'for name in ("path", "offset", "size", "content", "caption"):',
        f"{INTERRUPTION}::test_changed_data_is_not_gone_on_with",
    ),
    Mutation(
        "trust: a file that changes during a run passes",
        "data/sources/folder.py",
        "if file.fs is None and None not in listed and file.facts() != listed:",
        "if file.fs is None and None in listed and file.facts() != listed:",
        f"{DISK}::test_a_file_that_changes_during_a_run_is_skipped_and_named",
    ),
    Mutation(
        "trust: listings are remembered whatever files' times say",
        "data/sources/folder.py",
        "if (facts.st_size, facts.st_mtime_ns) != (size, when):",
        "if facts.st_size != size:",
        f"{SOURCES}::test_an_edit_in_place_is_seen_whichever_file_it_is",
    ),
    Mutation(
        "trust: listings are remembered whatever files' sizes say",
        "data/sources/folder.py",
        "if (facts.st_size, facts.st_mtime_ns) != (size, when):",
        "if facts.st_mtime_ns != when:",
        f"{SOURCES}::test_a_file_of_another_length_is_seen_whatever_its_time_says",
    ),
    Mutation(
        "trust: a flipped bit in a listing passes",
        "data/cache.py",
        "if said.read(8) != _checksum(file):",
        "if not said.read(8):",
        "unit/test_data_cache.py::test_any_damaged_byte_makes_a_table_unknown",
    ),
    Mutation(
        "trust: views are drawn from a generator with a history",
        "train/step.py",
        "draws = Draws(self.training.seed, epoch, batch.ids)",
        "draws = Draws(int(torch.randint(1 << 30, ())), epoch, batch.ids)",
        f"{INTERRUPTION}::test_a_killed_run_goes_on_without_a_break",
    ),
    Mutation(
        "trust: the order of samples hangs on the clock",
        "data/loader.py",
        "return Order(self.seed, epoch, len(self.rows))(places).numpy()",
        'return Order(int(__import__("time").time()), epoch, len(self.rows))(places).numpy()',
        f"{EXACT}::test_a_run_goes_on_bitwise_when_the_clock_jumps",
    ),
    Mutation(
        "trust: the order of samples is the same each epoch",
        "data/loader.py",
        "return Order(self.seed, epoch, len(self.rows))(places).numpy()",
        "return Order(self.seed, 0, len(self.rows))(places).numpy()",
        f"{LOADER}::test_every_sample_is_shown_once_an_epoch_in_a_new_order",
    ),
    Mutation(
        "trust: a store's journal is believed",
        "data/store.py",
        'if checksum != f"{zlib.crc32(told.encode()):08x}":',
        "if not told:",
        f"{STORE}::test_a_journal_with_a_digit_changed_is_not_believed",
    ),
    Mutation(
        "trust: a store's samples are believed",
        "data/store.py",
        "elif zlib.crc32(file.read(chunk.bytes)) != chunk.checksum:",
        "elif len(file.read(chunk.bytes)) != chunk.bytes:",
        f"{STORE}::test_a_damaged_store_is_made_again",
    ),
    Mutation(
        "trust: a store that was cut off is not cut back",
        "data/store.py",
        "        samples.truncate(sum(chunk.bytes for chunk in chunks))",
        "        samples.truncate()",
        f"{STORE}::test_a_build_that_was_cut_off_goes_on_after_its_last_whole_chunk",
    ),
]
