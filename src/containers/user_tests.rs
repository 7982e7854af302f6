//! Who runs: vectors from known attacks, and what critest expects.

use super::*;

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
    broken\n\
    daemon:x:1:1::/usr/sbin:/usr/sbin/nologin\n\
    app:x:1000:1000:App:/home/app:/bin/sh\n\
    other:x:1000:7::/other:\n\
    noid:x:-5:0::/:\n\
    relative:x:9:9::home:\n\
    last:x:77:78::/last:/bin/sh";
const GROUP: &str =
    "root:x:0:root\nwheel:x:10:root,app\nbig:x:50000:other,app\nalone:x:60:\nstaff:x:61:appl,ap\n";

fn files(passwd: &'static str, group: &'static str) -> UserFiles<'static> {
    UserFiles { passwd: Some(Box::new(passwd.as_bytes())), group: Some(Box::new(group.as_bytes())) }
}

fn request<'a>(run_as: &'a RunAs, image_user: &'a str) -> Request<'a> {
    Request { run_as, image: "busybox", image_user, supplemental: &[], policy: GroupsPolicy::Merge }
}

fn as_image(user: &str) -> Result<User, UserError> {
    resolve(&request(&RunAs::Image, user), files(PASSWD, GROUP))
}

fn golden(user: &str) -> (u32, u32, Vec<u32>, Option<String>) {
    let user = as_image(user).unwrap();
    (user.uid, user.gid, user.groups, user.home)
}

fn home(path: &str) -> Option<String> {
    Some(path.to_string())
}

#[test]
fn the_images_user_is_a_name_or_a_number_with_or_without_a_group() {
    assert_eq!(golden(""), (0, 0, vec![0, 10], home("/root")));
    assert_eq!(golden("root"), (0, 0, vec![0, 10], home("/root")));
    assert_eq!(golden("app"), (1000, 1000, vec![10, 1000, 50000], home("/home/app")));
    assert_eq!(golden("1000"), (1000, 1000, vec![10, 1000, 50000], home("/home/app")));
    assert_eq!(golden("app:alone"), (1000, 60, vec![10, 60, 50000], home("/home/app")));
    assert_eq!(golden("1000:5"), (1000, 5, vec![5, 10, 50000], home("/home/app")));
    assert_eq!(golden("4000"), (4000, 0, vec![0], None));
    assert_eq!(golden("4000:wheel"), (4000, 10, vec![10], None));
    assert_eq!(golden("app:"), (1000, 1000, vec![10, 1000, 50000], home("/home/app")));
    assert_eq!(golden("last"), (77, 78, vec![78], home("/last")));
    assert_eq!(golden("relative"), (9, 9, vec![9], None));
}

#[test]
fn digits_never_name_an_entry_and_odd_names_never_become_root() {
    let hostile = "4294967296:x:0:0::/:\n4294967295:x:0:0::/:\n2147483648:x:0:0::/:\n1000000000000:x:0:0::/:\n\
        -1:x:0:0::/:\n+0:x:0:0::/:\n00:x:0:0::/:\n 0:x:0:0::/:\n0x0:x:0:0::/:\n007:x:0:0::/:\n";
    let vectors = [
        "4294967296",
        "4294967295",
        "1000000000000",
        "-1",
        "+0",
        "00",
        " 0",
        "007",
        "0 ",
        "\t0",
        "a\nb",
        ":0",
        ":",
    ];
    for user in vectors {
        let image = resolve(&request(&RunAs::Image, user), files(hostile, ""));
        assert!(matches!(image, Err(UserError::Invalid { .. })), "{user:?}: {image:?}");
        let name = RunAs::Name(user.to_string(), None);
        let named = resolve(&request(&name, "root"), files(hostile, ""));
        assert!(matches!(named, Err(UserError::Invalid { .. })), "{user:?}: {named:?}");
    }
    let high = resolve(&request(&RunAs::Image, "2147483648:0"), files(hostile, "")).unwrap();
    assert_eq!((high.uid, high.gid), (2_147_483_648, 0));
}

#[test]
fn bad_groups_are_refused() {
    for user in ["app:-1", "app:00", "app:4294967295", "app:a:b", "app: 0"] {
        assert!(matches!(as_image(user), Err(UserError::Invalid { .. })), "{user}");
    }
    let error = as_image("app:nosuch").unwrap_err().to_string();
    assert_eq!(error, "unable to find group \"nosuch\": no such entry in /etc/group of image busybox");
}

#[test]
fn an_unknown_name_says_where_it_is_missing() {
    for files in [files(PASSWD, GROUP), UserFiles::default()] {
        let error = resolve(&request(&RunAs::Image, "nginx"), files).unwrap_err().to_string();
        assert_eq!(error, "unable to find user \"nginx\": no such entry in /etc/passwd of image busybox");
    }
    assert!(matches!(as_image("noid"), Err(UserError::NoUser { .. })));
}

#[test]
fn the_request_wins_over_the_image() {
    let run = |run_as: RunAs| resolve(&request(&run_as, "app"), files(PASSWD, GROUP)).unwrap();
    assert_eq!(run(RunAs::Uid(1, None)).groups, [1]);
    assert_eq!(run(RunAs::Uid(1, Some(9))).gid, 9);
    assert_eq!(run(RunAs::Uid(5000, None)).gid, 0);
    assert_eq!(run(RunAs::Name("daemon".into(), None)).uid, 1);
    assert_eq!(run(RunAs::Name("root".into(), Some(33))).groups, [0, 10, 33]);
    assert_eq!(run(RunAs::Name("1".into(), None)).home.as_deref(), Some("/usr/sbin"));
}

#[test]
fn the_groups_policy_says_whether_the_images_groups_count() {
    let passwd = "default-user:x:1000:1000::/:\n";
    let group = "group-defined-in-image:x:50000:default-user\n";
    let run_as = RunAs::Uid(1000, Some(1000));
    for (policy, groups) in
        [(GroupsPolicy::Merge, vec![1000, 1234, 50000]), (GroupsPolicy::Strict, vec![1000, 1234])]
    {
        let request =
            Request { run_as: &run_as, image: "x", image_user: "", supplemental: &[1234, 1234], policy };
        let user = resolve(&request, files(passwd, group)).unwrap();
        assert_eq!((user.uid, user.gid, user.groups), (1000, 1000, groups));
    }
}

#[test]
fn lines_with_control_characters_are_no_entries() {
    let passwd = "app:x:5:5::/home\rroot:x:0:\napp:x:6:6::/ok:\n";
    assert_eq!(resolve(&request(&RunAs::Image, "app"), files(passwd, "")).unwrap().uid, 6);
}

#[test]
fn the_reported_user_of_an_image_is_a_number_or_a_name() {
    assert_eq!(image_user("1002:7"), (Some(1002), String::new()));
    assert_eq!(image_user("www-data:7"), (None, "www-data".into()));
    assert_eq!(image_user(""), (Some(0), String::new()));
    assert_eq!(image_user(":7"), (Some(0), String::new()));
    for odd in ["4294967296", "4294967295", "007", "-1", "a b"] {
        assert_eq!(image_user(odd), (None, odd.into()), "{odd}");
    }
}

proptest::proptest! {
    #[test]
    fn only_root_or_zero_or_the_default_are_uid_0(user in "[ -~]{0,10}") {
        let is_root = ["", "0", "root"].contains(&user.split(':').next().unwrap_or_default());
        if let Ok(found) = as_image(&user) {
            proptest::prop_assert!(found.uid != 0 || is_root, "{user:?}");
            proptest::prop_assert!(found.groups.contains(&found.gid));
        }
    }

    #[test]
    fn any_account_files_are_survived(passwd in ".{0,200}", group in ".{0,200}", user in "[a-z]{1,3}|[0-9]{1,3}") {
        let files = UserFiles {
            passwd: Some(Box::new(passwd.as_bytes())),
            group: Some(Box::new(group.as_bytes())),
        };
        let _ = resolve(&request(&RunAs::Image, &user), files);
    }
}
