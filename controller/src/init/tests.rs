//! What is made by hand, in directories of the tests' own.

use std::os::unix::fs::PermissionsExt;

use lockstep_model::identity::TokenFor;
use lockstep_transport::settings::File;

use super::*;
use crate::config::{Config, TABLE};

const NOW: Timestamp = Timestamp(1_800_000_000_000);

fn setup(data_dir: &Path) -> Setup {
    Setup {
        data_dir: data_dir.to_owned(),
        fleet: "prod".parse().unwrap(),
        listen: "10.0.0.1:7400".parse().unwrap(),
        advertise: vec!["ctl.example.org:7400".parse().unwrap()],
    }
}

#[tokio::test]
async fn a_fleet_is_set_up_with_one_admin_and_one_token() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("deep/er");
    let token = init(&setup(&dir), NOW).await.unwrap();
    let desk = Desk::open(&dir).await.unwrap();
    let world = &desk.world;
    let fleet = &world.fleet().unwrap().value;
    assert_eq!(fleet.name.as_str(), "prod");
    assert_ne!(fleet.incarnation.0, 0);
    assert_eq!((world.users().len(), world.tokens().len()), (1, 1));
    let kept = &world.tokens()[token.id()].value;
    assert_eq!(kept.secret_sha256, token.secret_sha256());
    assert_eq!(kept.grants, TokenFor::User { name: FIRST_ADMIN.parse().unwrap() });
    let ca = Ca::load(&dir.join(CA_DIR), &fleet.name, NOW).unwrap();
    assert_eq!(token.root_sha256(), ca.root_sha256());
    assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);

    let text = fs::read_to_string(dir.join(CONFIG_FILE)).unwrap();
    let file = File { name: CONFIG_FILE, text: &text };
    let config = Config::from_values(&TABLE.load(Some(file), [], []).unwrap()).unwrap();
    assert_eq!((config.data_dir, config.listen), (dir, "10.0.0.1:7400".parse().unwrap()));
    assert_eq!(config.advertise, setup(Path::new("/")).advertise);
}

#[tokio::test]
async fn what_is_there_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    init(&setup(dir.path()), NOW).await.expect("an empty directory is free");
    let again = init(&setup(dir.path()), NOW).await.unwrap_err();
    assert!(matches!(again, InitError::Refused(_)), "{again}");
    let file = dir.path().join(CONFIG_FILE);
    assert!(matches!(init(&setup(&file), NOW).await, Err(InitError::Io { .. })), "a file");
}

#[tokio::test]
async fn a_failure_leaves_nothing_and_a_broken_try_is_no_obstacle() {
    let parent = tempfile::tempdir().unwrap();
    // A path so long that the directory fits and the files in it do not.
    const LENGTH: usize = 4082;
    let mut long = parent.path().to_owned();
    while LENGTH - long.as_os_str().len() > 202 {
        long.push("x".repeat(200));
    }
    long.push("y".repeat(LENGTH - long.as_os_str().len() - 1));
    let error = init(&setup(&long), NOW).await.unwrap_err();
    assert!(error.to_string().contains("root-1"), "{error}");
    assert!(!long.exists());

    let dir = parent.path().join("data");

    fs::create_dir_all(dir.join(DRAFT).join("store")).unwrap();
    fs::create_dir(dir.join("lost+found")).unwrap();
    init(&setup(&dir), NOW).await.unwrap();
    let mut names: Vec<_> = fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["ca", "controller.toml", "lost+found", "store"]);
}

#[tokio::test]
async fn an_admin_who_lost_everything_is_let_in() {
    let dir = tempfile::tempdir().unwrap();
    init(&setup(dir.path()), NOW).await.unwrap();
    let admin: UserName = FIRST_ADMIN.parse().unwrap();
    let other: UserName = "anna".parse().unwrap();
    for user in [&admin, &other] {
        let token = admin_token(dir.path(), user, NOW).await.unwrap();
        let desk = Desk::open(dir.path()).await.unwrap();
        let found = &desk.world.users()[user].value;
        assert_eq!((found.role, found.disabled), (Role::Admin, false));
        assert!(desk.world.tokens().contains_key(token.id()));
    }
    let empty = tempfile::tempdir().unwrap();
    assert!(matches!(admin_token(empty.path(), &admin, NOW).await, Err(InitError::Store(_))));
}

#[test]
fn the_address_to_type_is_one_that_can_be_reached() {
    let mut setup = setup(Path::new("/x"));
    assert_eq!(setup.address(), "ctl.example.org:7400");
    setup.advertise.clear();
    assert_eq!(setup.address(), "10.0.0.1:7400");
    setup.listen = "[::]:7".parse().unwrap();
    assert!(setup.address().ends_with(":7") && !setup.address().starts_with('['));
}
