"""Protections of what is told, taken out one by one: names in pages, tables and messages; leaks; networks."""

from __future__ import annotations

from .mutation import Mutation

ARTEFACTS, LEAKS, NETWORK = (f"reliability/test_{name}.py" for name in ("artefacts_hostile", "leaks", "network"))
PAGE = "unit/test_use_report.py"
PAGES_TELL = f"{LEAKS}::test_pages_say_nothing_of_the_machine"
FEATURES_TELL = f"{LEAKS}::test_embeddings_say_nothing_of_the_machine_unless_they_are_asked_to"
EXPORTS_TELL = f"{LEAKS}::test_the_encoder_its_results_and_its_exports_say_nothing_of_the_machine"

WORD_MUTATIONS = [
    Mutation(
        "trust: names are not escaped in pages",
        "use/report_page.py",
        "autoescape=True,",
        "autoescape=False,",
        f"{PAGE}::test_no_text_from_outside_becomes_markup",
    ),
    Mutation(
        "trust: names are not escaped in a page's data",
        "use/report_page.py",
        'for character in "<>&\\u2028\\u2029":',
        'for character in "&\\u2028\\u2029":',
        f"{PAGE}::test_no_text_from_outside_becomes_markup",
    ),
    Mutation(
        "trust: words between backticks are not escaped",
        "use/report_page.py",
        "escape(part) for place",
        "Markup(part) for place",
        f"{PAGE}::test_no_text_from_outside_becomes_markup",
    ),
    Mutation(
        "trust: pages may load from anywhere",
        "use/report_page.py",
        "default-src 'none'; img-src data:;",
        "default-src *; img-src data:;",
        f"{PAGE}::test_the_policy_allows_exactly_the_style_and_the_script_of_the_page",
    ),
    Mutation(
        "trust: names break the lines of skipped.tsv",
        "data/skipped.py",
        "{plain(collection.index.path(row))}",
        "{collection.index.path(row)}",
        "unit/test_data_loader.py::test_skipped_files_are_listed_with_path_and_reason",
    ),
    Mutation(
        "trust: names break the lines beside features",
        "train/folder.py",
        'text.encode("unicode_escape").decode("ascii") if any(c in text for c in "\\t\\n\\r\\\\") else text',
        "text",
        "unit/test_use_embed.py::test_odd_file_names_come_back_from_the_table_beside_numpy",
    ),
    Mutation(
        "trust: names give the terminal commands",
        "core/errors.py",
        "super().__init__(plain(message))",
        "super().__init__(message)",
        f"{ARTEFACTS}::test_what_is_told_of_a_name_is_one_line_without_commands_to_the_terminal",
    ),
]

LEAK_MUTATIONS = [
    Mutation(
        "trust: pages tell where skipped files lie",
        "use/report.py",
        "skipped=[(told(name), told(reason)) for",
        "skipped=[(name, told(reason)) for",
        PAGES_TELL,
    ),
    Mutation(
        "trust: pages tell folders of the command",
        "use/report.py",
        'command=told(command) if " " in command',
        'command=command if " " in command',
        PAGES_TELL,
    ),
    Mutation(
        "trust: pages tell folders of the settings",
        "use/report.py",
        "Setting(setting.name, told(setting.value), told(setting.origin))",
        "setting",
        PAGES_TELL,
    ),
    Mutation(
        "trust: pages tell the folder of the run",
        "use/report.py",
        'return folder.resolve().name if relative.parts[0] == ".." or len(relative.parts) > 2 else str(relative)',
        "return str(folder)",
        PAGES_TELL,
    ),
    Mutation(
        "trust: features tell whole paths",
        "use/embed_files.py",
        "known = collection.paths if absolute else collection.index.names",
        "known = collection.paths",
        FEATURES_TELL,
    ),
    Mutation(
        "trust: the list of skipped files tells whole paths",
        "use/embed.py",
        "known = collection.paths if absolute else collection.index.names",
        "known = collection.paths",
        FEATURES_TELL,
    ),
    Mutation(
        "trust: an encoder tells the folder of its run",
        "train/session.py",
        '"seed": training.seed}\n',
        '"seed": training.seed, "run": str(folder.path)}\n',
        EXPORTS_TELL,
    ),
    Mutation(
        "trust: results tell the folder of the data",
        "api.py",
        "return evaluate(self._open, collection, short_name(data), protocols,",
        "return evaluate(self._open, collection, str(data).replace('/', '-'), protocols,",
        EXPORTS_TELL,
    ),
    Mutation(
        "trust: exported programs name the files they were traced from",
        "use/export.py",
        'node.meta.pop("stack_trace", None)',
        'node.meta.get("stack_trace", None)',
        EXPORTS_TELL,
    ),
    Mutation(
        "trust: a list of methods calls home",
        "cli.py",
        "_print(catalogue.overview() if",
        '__import__("socket").create_connection(("localhost", 9))\n    _print(catalogue.overview() if',
        f"{NETWORK}::test_no_verb_opens_a_connection",
    ),
    Mutation(
        "trust: training calls home",
        "train/session.py",
        "    keep_freed_memory()\n",
        '    __import__("socket").getaddrinfo("localhost", 9)\n',
        f"{NETWORK}::test_no_verb_opens_a_connection",
    ),
    Mutation(
        "trust: pages fetch their pictures",
        "use/report_images.py",
        '"data:image/webp;base64,"',
        '"https://localhost/?image/webp;base64,"',
        f"{NETWORK}::test_no_verb_opens_a_connection",
    ),
]
