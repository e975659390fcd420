//! Settings: precedence, and every mistake named at once.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

fn check_name(text: &str) -> Result<(), String> {
    if text.starts_with('-') { Err("begins with a dash".into()) } else { Ok(()) }
}

const SETTINGS: &[Setting] = &[
    Setting::new("data-dir", Kind::Path, "Where the state is kept.", "/var/lib/x").required(),
    Setting::new("listen", Kind::Socket, "Where agents connect.", "[::]:7400")
        .default("0.0.0.0:7400"),
    Setting::new("controllers", Kind::List(&Kind::Endpoint), "Whom to dial.", "c1:7400,c2:7400"),
    Setting::new(
        "heartbeat",
        Kind::Duration { min: Duration::from_millis(100), max: HOUR },
        "How often a sign of life is sent.",
        "500ms",
    )
    .default("10s"),
    Setting::new("cache", Kind::Size { min: 1 << 20, max: 1 << 30 }, "Memory kept.", "64MiB")
        .default("64MiB"),
    Setting::new("workers", Kind::Count { min: 1, max: 64 }, "Deliveries at once.", "4")
        .default("4"),
    Setting::new("reflection", Kind::Switch, "Serve reflection.", "true").default("false"),
    Setting::new("log-format", Kind::OneOf(&["auto", "human", "json"]), "How logs look.", "json")
        .default("auto"),
    Setting::new("name", Kind::Checked { shape: "a node name", check: check_name }, "Who.", "web1"),
    Setting::new("key-phrase", Kind::Text, "Opens the key.", "change-me").secret(),
];

const TABLE: Table = Table {
    program: "lockstep-test",
    settings: SETTINGS,
    other_variables: &["LOCKSTEP_CONTROLLER"],
};

fn load(file: &str, variables: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<Values, String> {
    let variables = variables.iter().map(|(name, value)| (name.into(), value.into()));
    let flags = flags.iter().map(|(key, value)| ((*key).into(), (*value).into()));
    let file = File { name: "a.toml", text: file };
    TABLE
        .load(Some(file), variables, flags)
        .map_err(|errors| errors.iter().map(|error| format!("{error}\n")).collect::<String>())
}

#[test]
fn each_kind_is_read_from_the_file() {
    let values = load(
        r#"
        data-dir = "/srv/data"
        listen = "[::1]:1"
        controllers = ["c1:7400", "[fd00::1]:7400", "10.0.0.1:7400"]
        heartbeat = "2m"
        cache = "1GiB"
        workers = 0x10
        reflection = true
        log-format = "json"
        name = "web1"
        key-phrase = "s e c r e t"
        "#,
        &[],
        &[],
    )
    .unwrap();
    assert_eq!(values.get::<PathBuf>("data-dir").unwrap(), PathBuf::from("/srv/data"));
    assert_eq!(values.get::<SocketAddr>("listen").unwrap(), "[::1]:1".parse().unwrap());
    let controllers = values.get::<Vec<String>>("controllers").unwrap();
    assert_eq!(controllers, ["c1:7400", "[fd00::1]:7400", "10.0.0.1:7400"]);
    assert_eq!(values.get::<Duration>("heartbeat").unwrap(), Duration::from_secs(120));
    assert_eq!(values.get::<u64>("cache").unwrap(), 1 << 30);
    assert_eq!(values.get::<usize>("workers").unwrap(), 16);
    assert!(values.get::<bool>("reflection").unwrap());
    assert_eq!(values.find::<String>("name").unwrap().as_deref(), Some("web1"));
    assert!(!format!("{values:?}").contains("s e c"), "{values:?}");
    assert!(values.get::<bool>("listen").is_err());
    assert!(values.find::<bool>("nothing").is_err());
}

#[test]
fn a_flag_wins_over_a_variable_over_the_file_over_the_default() {
    let file = "data-dir = '/f'\nworkers = 2";
    let variable = [("LOCKSTEP_WORKERS", "3")];
    let flag = [("workers", "5")];
    let cases = [
        (load("data-dir = '/f'", &[], &[]), 4, Origin::Default),
        (load(file, &[], &[]), 2, Origin::File),
        (load(file, &variable, &[]), 3, Origin::Variable),
        (load(file, &variable, &flag), 5, Origin::Flag),
        (load(file, &[("LOCKSTEP_WORKERS", "")], &[]), 2, Origin::File),
    ];
    for (values, workers, origin) in cases {
        let values = values.unwrap();
        assert_eq!(values.get::<u64>("workers"), Ok(workers));
        assert_eq!(values.origin("workers"), Some(origin));
    }
}

#[test]
fn ten_mistakes_make_ten_lines() {
    let errors = load(
        "listen = \"nowhere\"\nheartbeat = 10\nworkers = 65\ndata_dir = \"/x\"\nkey-phrase = [1, 2]\n\
         controllers = [\"c1\", \"c2:7400\"]\n[tls]\ncert = 1\n",
        &[
            ("LOCKSTEP_CACHE", "64MB"),
            ("LOCKSTEP_LOG_FROMAT", "json"),
            ("LOCKSTEP_PORT", "tcp://10.0.0.1:1"),
            ("LOCKSTEP_CONTROLLER", "c:1"),
            ("PATH", "/bin"),
        ],
        &[("name", "-web1")],
    )
    .unwrap_err();
    let expected = "\
a.toml:1, key listen: \"nowhere\" is not an IP address with its port; write it as in \"[::]:7400\"
a.toml:2, key heartbeat: 10 is not a duration from 100ms to 1h; write it as in \"500ms\"
a.toml:3, key workers: 65 is not a whole number from 1 to 64; write it as in 4
a.toml:4, key data_dir: is unknown; did you mean data-dir?
a.toml:5, key key-phrase: the value (not shown) is not non-empty text; write it as in \"change-me\"
a.toml:6, key controllers: this list is not a list, each item a host name or IP address with its port; \"c1\" is not; write it as in [\"c1:7400\", \"c2:7400\"]
a.toml:7, key tls: is unknown; lockstep-test --help lists the settings
variable LOCKSTEP_CACHE: \"64MB\" is not a size from 1MiB to 1GiB; write it as in \"64MiB\"
variable LOCKSTEP_LOG_FROMAT: is unknown; did you mean LOCKSTEP_LOG_FORMAT?
flag --name: \"-web1\" is not a node name (begins with a dash); write it as in \"web1\"
setting data-dir: is required; set it in the config file, --data-dir or LOCKSTEP_DATA_DIR to an absolute path, for example \"/var/lib/x\"
";
    let sorted = |text: &str| {
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&errors), sorted(expected));
}

#[test]
fn a_file_that_is_not_toml_is_told_by_line_and_not_quoted() {
    let errors =
        load("data-dir = /x\nkey-phrase = \"hunter2\nworkers = = 3\n", &[], &[]).unwrap_err();
    for line in ["a.toml:1:", "a.toml:2:", "a.toml:3:"] {
        assert!(errors.contains(line), "{errors}");
    }
    assert!(!errors.contains("hunter2"), "{errors}");
    let twice = load("data-dir = '/a'\ndata-dir = '/b'\n", &[], &[]).unwrap_err();
    assert!(twice.starts_with("a.toml:2: is not TOML: duplicate key"), "{twice}");
    let long = load(&"#".repeat(FILE_BYTES_MAX + 1), &[], &[]).unwrap_err();
    assert!(long.contains("is longer than"), "{long}");
}

#[test]
fn flags_come_from_the_table() {
    let command = clap::Command::new("run").args(TABLE.to_clap_args());
    let parse = |args: &[&str]| {
        let matches = command.clone().try_get_matches_from([&["run"], args].concat()).unwrap();
        TABLE.flags(&matches)
    };
    let given = parse(&[
        "--data-dir",
        "/x",
        "--controllers",
        "a:1",
        "--controllers=b:2,c:3",
        "--reflection",
    ]);
    let values = TABLE.load(None, [], given).unwrap();
    assert_eq!(values.get::<Vec<String>>("controllers").unwrap(), ["a:1", "b:2", "c:3"]);
    assert_eq!(values.get::<bool>("reflection"), Ok(true));
    let twice = [("workers", "1"), ("workers", "2")];
    assert!(load("data-dir = '/x'", &[], &twice).unwrap_err().contains("is given twice"));
    assert!(parse(&[]).is_empty());
    assert!(command.clone().try_get_matches_from(["run", "--key-phrase=x"]).is_err());
    let secret = load("data-dir = '/x'", &[], &[("key-phrase", "x")]).unwrap_err();
    assert_eq!(secret, "flag --key-phrase: is unknown\n");
    let help = command.clone().render_help().to_string();
    assert!(help.contains("[env: LOCKSTEP_LOG_FORMAT] [default: auto]"), "{help}");
}

#[test]
fn the_example_and_the_reference_say_what_the_table_says() {
    TABLE.check().unwrap();
    let example = TABLE.render_example();
    let values = load(&example, &[], &[]).unwrap();
    assert_eq!(values.origin("data-dir"), Some(Origin::File));
    assert_eq!(values.origin("listen"), Some(Origin::Default));
    let is_setting =
        |line: &str| SETTINGS.iter().any(|s| line.starts_with(&format!("# {} = ", s.key)));
    let uncommented: String = example
        .lines()
        .map(
            |line| if is_setting(line) { format!("{}\n", &line[2..]) } else { format!("{line}\n") },
        )
        .collect();
    let values = load(&uncommented, &[], &[]).unwrap();
    for setting in SETTINGS {
        assert_eq!(values.origin(setting.key), Some(Origin::File), "{}", setting.key);
        assert!(TABLE.render_reference().contains(&setting.variable()));
    }
    assert!(values.render_effective().contains("key-phrase = (secret)  # config file\n"));
}

#[test]
fn a_table_with_mistakes_is_told() {
    const WRONG: &[Setting] = &[
        Setting::new("Listen_On", Kind::Switch, "", "true"),
        Setting::new("a", Kind::Switch, "", "yes").default("no"),
        Setting::new("a", Kind::Switch, "", "true").default("true").required(),
    ];
    let table = Table { settings: WRONG, ..TABLE };
    assert_eq!(table.check().unwrap_err().len(), 5);
}

#[test]
fn a_value_is_refused_outside_its_kind() {
    let refused = [
        ("data-dir", "relative"),
        ("data-dir", "/a/../b"),
        ("data-dir", ""),
        ("data-dir", "/a\nb"),
        ("listen", "localhost:1"),
        ("listen", "1.2.3.4"),
        ("controllers", "c1"),
        ("controllers", "c1:0"),
        ("controllers", "c1:65536"),
        ("controllers", "c1:+1"),
        ("controllers", "fd00::1:7400"),
        ("controllers", "-c:1"),
        ("controllers", "c 1:1"),
        ("controllers", "c1:1,,c2:1"),
        ("heartbeat", "10"),
        ("heartbeat", "s"),
        ("heartbeat", "-1s"),
        ("heartbeat", "1.5s"),
        ("heartbeat", "99ms"),
        ("heartbeat", "18446744073709551615d"),
        ("cache", "64mib"),
        ("workers", "+4"),
        ("workers", ""),
        ("workers", "0"),
        ("reflection", "yes"),
        ("log-format", "JSON"),
    ];
    for (key, text) in refused {
        assert!(load("", &[], &[("data-dir", "/x"), (key, text)]).is_err(), "{key}={text}");
        let setting = TABLE.find(key).unwrap();
        assert!(setting.parse(&Raw::Text(text.into())).is_err(), "{key}={text}");
    }
    let many = vec!["c:1"; value::LIST_MAX + 1].join(",");
    assert!(TABLE.find("controllers").unwrap().parse(&Raw::Text(many)).is_err());
}

#[test]
fn a_word_is_near_another() {
    for (a, b, expected) in
        [("", "abc", 3), ("listen", "listen", 0), ("lisetn", "listen", 1), ("kitten", "sitting", 3)]
    {
        assert_eq!(distance(a, b), expected, "{a} {b}");
    }
}

#[test]
fn text_that_is_not_utf_8_is_refused() {
    use std::os::unix::ffi::OsStringExt;
    let value = OsString::from_vec(vec![b'/', 0xff]);
    let errors = TABLE.load(None, [("LOCKSTEP_DATA_DIR".into(), value)], []).unwrap_err();
    assert!(errors[0].to_string().contains("LOCKSTEP_DATA_DIR: is not UTF-8 text"), "{errors:?}");
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(file in "\\PC{0,200}|(\\w+ ?= ?[\\w\"\\[\\],']*\n){0,5}", text in "\\PC{0,40}") {
        let variables = SETTINGS.iter().map(|s| (s.variable(), text.clone()));
        let variables: Vec<_> = variables.collect();
        let variables: Vec<_> = variables.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        for line in load(&file, &variables, &[(&text, &text)]).err().iter().flat_map(|e| e.lines()) {
            prop_assert!(line.contains(": "), "{}", line);
        }
    }

    #[test]
    fn a_written_duration_reads_back(ms in 100u64..3_600_000) {
        let duration = Duration::from_millis(ms);
        let written = Raw::Text(value::write_duration(duration));
        prop_assert_eq!(TABLE.find("heartbeat").unwrap().kind.parse(&written), Ok(Value::Duration(duration)));
    }
}
