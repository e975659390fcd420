//! Tables of options that may be given and of those that may not, and how they go together.

use proptest::prelude::*;

use super::table::{Rule, TABLE};
use super::*;

fn one(text: &str) -> Result<String, String> {
    text.parse::<RsyncOption>().map(|option| option.to_string()).map_err(|e| e.problem)
}

fn hop(defaults: &str, options: &str) -> Hop {
    let parsed = |text: &str| text.parse::<RsyncOptions>().unwrap();
    Hop { defaults: parsed(defaults), options: parsed(options), delete: Delete::After }
}

#[test]
fn every_name_and_letter_stands_for_one_option() {
    for (at, row) in TABLE.iter().enumerate() {
        for other in &TABLE[..at] {
            assert_ne!(row.name, other.name);
            assert!(row.letter.is_none() || row.letter != other.letter, "{row:?}");
        }
    }
}

#[test]
fn what_the_list_has_is_taken_as_it_is_written() {
    for text in [
        "-avH",
        "-vv",
        "-P",
        "-D",
        "-y",
        "--archive",
        "--no-D",
        "--no-o",
        "--exclude=*.iso",
        "--exclude=My Files/",
        "--exclude=- it's \"quoted\"",
        "--exclude=--delete",
        "--exclude=$(id);|&",
        "--include=*/",
        "--filter=- /x y",
        "--filter=protect lost+found",
        "-f+ *.deb",
        "-B1000",
        "-zB 128K".replace(' ', "").as_str(),
        "-@-1",
        "--modify-window=2",
        "--max-size=1.5G",
        "--min-size=10KB",
        "--max-size=1GiB-1",
        "--max-alloc=2G",
        "--chmod=D755,F644",
        "--chmod=Dg+s,ug+w,Fo-w,+X",
        "--chown=mirror:mirror",
        "--chown=:1000",
        "--usermap=0-99:nobody,*:mirror",
        "--partial-dir=.rsync-partial",
        "--compress-choice=zstd",
        "--cc=xxh3,md5",
        "--zl=9",
        "--skip-compress=gz/mp[34]/7z",
        "--iconv=utf8,iso-8859-1",
        "--checksum-seed=7",
        "--safe-links",
        "--numeric-ids",
        "--delay-updates",
        "--fsync",
    ] {
        assert_eq!(one(text).as_deref(), Ok(text), "{text}");
    }
}

#[test]
fn what_the_list_refuses_is_named_with_the_reason() {
    for (text, problem) in [
        ("-e", "-e is not allowed: it runs a program"),
        ("-e sh", "-e is not allowed: it runs a program"),
        ("-avesh", "-e is not allowed: it runs a program"),
        ("-aveid", "-e is not allowed: it runs a program"),
        ("--rsh=sh -c id", "--rsh is not allowed: it runs a program"),
        ("--rsync-path=sudo rsync", "--rsync-path is not allowed: it runs a program"),
        ("-M--log-file=/x", "-M is not allowed: it tells the far side"),
        ("--remote-option=--x", "--remote-option is not allowed"),
        ("--daemon", "--daemon is not allowed: it makes a daemon"),
        ("--config=/etc/x", "--config is not allowed"),
        ("--dparam=x=y", "--dparam is not allowed"),
        ("--server", "--server is not allowed"),
        ("--sender", "--sender is not allowed"),
        ("--files-from=/etc/passwd", "--files-from is not allowed: it reads or writes files"),
        ("--files-from=host:/x", "--files-from is not allowed"),
        ("--exclude-from=/etc/shadow", "--exclude-from is not allowed"),
        ("--include-from=x", "--include-from is not allowed"),
        ("--filter=merge /etc/shadow", "--filter must be '- PATTERN'"),
        ("--filter=. /etc/shadow", "--filter must be"),
        ("--filter=: .rules", "--filter must be"),
        ("--filter=dir-merge .rules", "--filter must be"),
        ("--filter=-/C x", "--filter must be"),
        ("--filter=!", "--filter must be"),
        ("--filter=clear ", "--filter must be"),
        ("-f. /etc/shadow", "-f must be"),
        ("-F", "-F is not allowed"),
        ("-aF", "-F is not allowed"),
        ("-C", "-C is not allowed"),
        ("--exclude=!", "--exclude must be a pattern"),
        ("--exclude=", "--exclude must be a pattern"),
        ("--exclude=- ", "--exclude must be a pattern"),
        ("--exclude=a\nb", "must have at most 1024 bytes and no control characters"),
        ("--exclude=a\0b", "no control characters"),
        ("--exclude *.iso", "write --exclude=VALUE, not \"--exclude *.iso\""),
        ("--exclude", "--exclude needs a value: --exclude=VALUE"),
        ("-B", "-B needs a value: -BVALUE"),
        ("--backup-dir=../x", "--backup-dir is not allowed: old versions"),
        ("-b", "-b is not allowed"),
        ("--temp-dir=/tmp", "--temp-dir is not allowed"),
        ("-T/tmp", "-T is not allowed"),
        ("--partial-dir=/tmp", "--partial-dir must be relative"),
        ("--partial-dir=a/../b", "--partial-dir must be relative"),
        ("--partial-dir=", "--partial-dir must be relative"),
        ("--compare-dest=/x", "--compare-dest is not allowed"),
        ("--copy-dest=../x", "--copy-dest is not allowed"),
        ("--link-dest=../x", "--link-dest is not allowed"),
        ("--password-file=/etc/x", "--password-file is not allowed: the password is given apart"),
        ("--log-file=/x", "--log-file is not allowed"),
        ("--write-batch=/x", "--write-batch is not allowed"),
        ("--only-write-batch=x", "--only-write-batch is not allowed"),
        ("--read-batch=x", "--read-batch is not allowed"),
        ("--early-input=/x", "--early-input is not allowed"),
        ("--copy-as=root", "--copy-as is not allowed"),
        ("--copy-devices", "--copy-devices is not allowed"),
        ("-L", "-L is not allowed: it follows links out of the tree"),
        ("-aK", "-K is not allowed: it follows links out of the tree"),
        ("--insecure-links", "--insecure-links is not allowed"),
        ("--trust-sender", "--trust-sender is not allowed"),
        ("--delete", "--delete is not allowed: the settings delete and"),
        ("--delete-after", "--delete-after is not allowed"),
        ("--del", "--del is not allowed"),
        ("--max-delete=5", "--max-delete is not allowed"),
        ("--force", "--force is not allowed"),
        ("--ignore-errors", "--ignore-errors is not allowed: what is missing"),
        ("--remove-source-files", "--remove-source-files is not allowed"),
        ("-n", "-n is not allowed"),
        ("--list-only", "--list-only is not allowed"),
        ("--out-format=%n", "--out-format is not allowed"),
        ("--stats", "--stats is not allowed"),
        ("--timeout=5", "--timeout is not allowed: the settings run-timeout, io-timeout"),
        ("--bwlimit=1M", "--bwlimit is not allowed"),
        ("--port=1", "--port is not allowed"),
        ("-4", "-4 is not allowed: the setting address-family is for that"),
        ("--no-r", "--no-r is not allowed"),
        ("-R", "-R is not allowed"),
        ("--recurs", "\"--recurs\" is not an option of rsync; names are not shortened"),
        ("--exc=x", "is not an option of rsync"),
        ("--del-after", "is not an option of rsync"),
        ("--D", "is not an option of rsync"),
        ("---archive", "is not an option of rsync"),
        ("--", "is not an option of rsync"),
        ("-", "is not an option: it does not begin with -"),
        ("", "is not an option"),
        ("x", "\"x\" is not an option"),
        ("host::module", "is not an option"),
        ("-aé", "is not an option of rsync"),
        ("-a -v", "is not an option of rsync"),
        ("--archive=yes", "--archive takes no value"),
        ("--chmod=x", "--chmod must be modes"),
        ("--chmod=99", "--chmod must be modes"),
        ("--chown=a:b:c", "--chown must be USER:GROUP"),
        ("--chown=:", "--chown must be USER:GROUP"),
        ("--chown=-x", "--chown must be USER:GROUP"),
        ("--usermap=x", "--usermap must be FROM:TO"),
        ("--max-size=lots", "--max-size must be a size"),
        ("--max-size=1.G.", "--max-size must be a size"),
        ("--max-size=99999999999G", "--max-size must be a size"),
        ("--max-alloc=1", "--max-alloc must be a size of at least 1M"),
        ("-B0", "-B must be a size"),
        ("-B=9", "-B must be a size"),
        ("--iconv=/../../x y", "--iconv must be"),
        ("--cc=md5;id", "--cc must be the name"),
    ] {
        let told = one(text).expect_err(text);
        assert!(told.contains(problem), "{text}: {told}");
    }
    let long = format!("-{}", "v".repeat(33));
    assert!(one(&long).unwrap_err().contains("more than 32 letters"));
}

#[test]
fn words_are_split_as_documented() {
    let read = |text: &str| match text.parse::<RsyncOptions>() {
        Ok(options) => options.0.iter().map(|option| option.to_string()).collect::<Vec<_>>(),
        Err(error) => vec!["!".to_owned(), error.problem],
    };
    for (text, expected) in [
        ("", &[][..]),
        ("  ", &[]),
        ("-avH", &["-avH"]),
        ("--exclude a  --exclude b --exclude a", &["--exclude=a", "--exclude=b", "--exclude=a"]),
        ("--exclude 'My Files' -z", &["--exclude=My Files", "-z"]),
        ("--exclude=\"My Files\"", &["--exclude=My Files"]),
        ("'--exclude=it''s'", &["--exclude=it's"]),
        ("--exclude=a\\ b", &["!", "\"b\" is not an option: it does not begin with - or --"]),
        ("-zB 1000 -v", &["-zB1000", "-v"]),
        ("--max-size 1G", &["--max-size=1G"]),
        ("--exclude", &["!", "--exclude needs a value: --exclude=VALUE"]),
        ("--exclude ''", &["!", "--exclude must be a pattern, and not ! or nothing, not \"\""]),
        ("--exclude 'x", &["!", "' is never closed"]),
        (
            "-a host::module /etc",
            &["!", "\"host::module\" is not an option: it does not begin with - or --"],
        ),
        ("-a -- x", &["!", "\"--\" is not an option of rsync; names are not shortened"]),
    ] {
        assert_eq!(read(text), expected, "{text}");
    }
    assert!(read(&"-v ".repeat(65))[1].contains("at most 64"));
}

#[test]
fn parts_that_contradict_each_other_are_named() {
    for (defaults, options, problem) in [
        ("-avH", "", ""),
        ("", "-rt", ""),
        ("-avH", "-v", ""),
        ("", "", "-r or -a is missing: without it nothing below the top would be brought"),
        ("-lt", "", "-r or -a is missing: without it nothing below the top would be brought"),
        ("-av", "-vv", "-v may be given twice at most: more is for debugging"),
        (
            "-aS",
            "--inplace",
            "--inplace and --sparse exclude each other: holes are not written into what is there",
        ),
        ("-aS", "--inplace --no-S", ""),
        ("-a --inplace", "-S --no-inplace", ""),
        (
            "-a",
            "--inplace --partial-dir=.p",
            "--inplace and --partial-dir exclude each other: a file is written where it is, or elsewhere first",
        ),
        (
            "-a --delay-updates",
            "--append-verify",
            "--append-verify and --delay-updates exclude each other: a file is written where it is, or elsewhere first",
        ),
        ("-a --append-verify", "--no-append -W", ""),
        (
            "-aW",
            "--append-verify",
            "--append-verify and --whole-file exclude each other: the rest of a file is sent, or all of it",
        ),
        (
            "-a --existing",
            "--ignore-existing",
            "--existing and --ignore-existing exclude each other: nothing would be brought",
        ),
        (
            "-a",
            "--ignore-non-existing --ignore-existing",
            "--ignore-non-existing and --ignore-existing exclude each other: nothing would be brought",
        ),
        ("-a", "--chown=a --chown=:b", ""),
        (
            "-a",
            "--chown=a:b --groupmap=*:c",
            "--chown and --groupmap say the same thing: leave one away",
        ),
        (
            "-a",
            "--usermap=*:a --usermap=*:b",
            "--usermap and --usermap say the same thing: leave one away",
        ),
    ] {
        let told = hop(defaults, options).check().err().map_or(String::new(), |e| e.problem);
        assert_eq!(told, problem, "{defaults} | {options}");
    }
}

#[test]
fn a_hop_tells_what_it_asks_for() {
    let hop = hop("-avH", "--exclude b --exclude a --no-D --chown=:m --append-verify");
    assert_eq!(
        hop.argv(),
        ["-avH", "--exclude=b", "--exclude=a", "--no-D", "--chown=:m", "--append-verify"]
    );
    assert!(hop.keeps_hard_links() && hop.is_verbose());
    let names: Vec<&str> = hop.names().into_iter().collect();
    assert_eq!(
        names.join(" "),
        "append append-verify archive chown devices exclude group groupmap hard-links links no-D \
         no-devices no-specials owner perms recursive specials times usermap verbose"
    );
}

#[test]
fn removals_have_the_words_of_rsync() {
    for (word, delete) in [("none", Delete::None), ("delete", Delete::Plain), ("del", Delete::Del)]
    {
        assert_eq!(word.parse(), Ok(delete));
        assert_eq!(delete.as_str(), word);
    }
    assert_eq!(Delete::ALL.len(), 8);
    assert!("--delete".parse::<Delete>().is_err());
}

fn word() -> impl Strategy<Value = String> {
    let name = (0..TABLE.len(), "[a-z0-9=./:*!' \"-]{0,12}").prop_map(|(at, value)| {
        let row = &TABLE[at];
        match (row.rule, row.letter) {
            (Rule::Value(_), _) => format!("--{}={value}", row.name),
            (_, Some(letter)) if value.len() % 2 == 0 => format!("-{letter}"),
            _ => format!("--{}", row.name),
        }
    });
    prop_oneof![name, "-[a-zA-Z@ ]{1,4}[0-9a-z=]{0,4}", "--exclude=[ -~]{0,12}", "[ -~]{0,12}"]
}

proptest! {
    #[test]
    fn what_is_read_is_allowed_and_reads_back(words in proptest::collection::vec(word(), 0..6)) {
        let options: Vec<RsyncOption> = words.iter().filter_map(|word| word.parse().ok()).collect();
        for (option, text) in options.iter().map(|option| (option, option.to_string())) {
            prop_assert_eq!(&text.parse::<RsyncOption>(), &Ok(option.clone()));
            for given in &option.given {
                let row = table::by_name(given.name).unwrap();
                prop_assert!(!matches!(row.rule, Rule::Refused(_)), "{}", text);
            }
        }
        let options = RsyncOptions(options);
        let text = options.to_string();
        prop_assert_eq!(text.parse::<RsyncOptions>(), Ok(options.clone()), "{}", text);
        let hop = Hop { defaults: options.clone(), options, delete: Delete::None };
        for word in hop.argv() {
            let name = word.trim_start_matches('-').split('=').next().unwrap_or_default();
            let refused = |row: &Row| row.name == name && matches!(row.rule, Rule::Refused(_));
            prop_assert!(word.starts_with('-') && !TABLE.iter().any(refused), "{}", word);
            let letters = word.strip_prefix('-').filter(|rest| !rest.starts_with('-'));
            prop_assert!(!letters.is_some_and(|letters| letters.starts_with(['e', 'M', 'T'])));
        }
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,40}", ascii in "[-aB@f= '\"é]{0,20}") {
        for text in [text, ascii] {
            if let Ok(options) = text.parse::<RsyncOptions>() {
                prop_assert_eq!(options.to_string().parse(), Ok(options));
            }
            let _ = text.parse::<RsyncOption>();
        }
    }
}
