//! Help texts, and the command lines in the documentation.

use crate::program::ampoule;

const COMMANDS: [&str; 14] = [
    "quantize", "inspect", "run", "eval", "compare", "bench", "selftest", "demo", "zoo", "teach",
    "distill", "extract", "merge", "prune",
];

#[test]
fn every_command_has_help_with_examples() {
    let all = ampoule(["--help"]).text();
    for command in COMMANDS {
        assert!(all.contains(&format!("\n  {command} ")), "{all}");
        let help = ampoule([command, "--help"]).text();
        assert!(help.contains("--json"), "{command}");
        let (_, examples) = help
            .split_once("Example")
            .unwrap_or_else(|| panic!("{command}"));
        assert!(
            examples.contains(&format!("  ampoule {command}")),
            "{examples}"
        );
        check_flags(examples, command);
    }
    for command in ["run", "eval", "bench", "selftest"] {
        let help = ampoule([command, "--help"]).text();
        for isa in ["portable", "avx2", "avxvnni", "avx512vnni", "amx"] {
            assert!(help.contains(isa), "{command} {isa}");
        }
    }
    assert!(
        ampoule(["--version"])
            .text()
            .contains(env!("CARGO_PKG_VERSION"))
    );
    assert_eq!(ampoule::<&str>([]).code, 2);
}

#[test]
fn command_lines_in_the_documentation_are_true() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pages = vec![root.join("README.md")];
    for folder in ["docs", "docs/commands"] {
        let files = std::fs::read_dir(root.join(folder)).unwrap();
        let files = files.map(|e| e.unwrap().path());
        pages.extend(files.filter(|p| p.extension().is_some_and(|e| e == "md")));
    }
    let mut checked = 0;
    for page in pages {
        checked += check_flags(
            &std::fs::read_to_string(&page).unwrap(),
            &page.to_string_lossy(),
        );
    }
    assert!(checked >= 20, "only {checked} command lines found");
}

/// Fails when an indented or prompted line starts `ampoule COMMAND` with a command or option that is
/// not there. Gives the number of lines checked.
fn check_flags(text: &str, place: &str) -> usize {
    let lines = text.lines().filter(|l| l.starts_with([' ', '$']));
    let lines = lines.filter_map(|l| l.trim_start_matches(['$', ' ']).strip_prefix("ampoule "));
    let mut checked = 0;
    for line in lines {
        let mut words = line.split_whitespace().peekable();
        let command = words.next().unwrap();
        assert!(COMMANDS.contains(&command), "{place}: ampoule {line}");
        let is_group = ["zoo", "teach"].contains(&command);
        let subcommand = words.next_if(|w| is_group && !w.starts_with("--"));
        let path = std::iter::once(command).chain(subcommand);
        let help = ampoule(path.chain(["--help"])).text();
        for flag in words
            .take_while(|w| !w.starts_with(['#', '|']))
            .filter(|w| w.starts_with("--"))
        {
            let is_there = help.split([' ', ',', '\n']).any(|w| w == flag);
            assert!(is_there, "{place}: {flag} in ampoule {line}");
        }
        checked += 1;
    }
    checked
}
