//! The user whose an instance is: the data directory's owner, else `postgres`.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

const USER: &str = "postgres";

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Owner {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    /// Every group that the user is in, `gid` too; sorted.
    pub groups: Vec<u32>,
}

impl Owner {
    /// Err when there is no such user, or when it would be root, whom postgres refuses.
    pub fn of(data: &Path) -> Result<Self, String> {
        let passwd = fs::read_to_string("/etc/passwd").map_err(|e| format!("/etc/passwd: {e}"))?;
        let group = fs::read_to_string("/etc/group").unwrap_or_default();
        let here = fs::metadata(data).ok().map(|found| found.uid()).filter(|uid| *uid != 0);
        let found = match here {
            Some(uid) => find(&passwd, &group, |_, other| other == uid),
            None => find(&passwd, &group, |name, _| name == USER),
        };
        match (found, here) {
            (Some(owner), _) if owner.uid != 0 => Ok(owner),
            (_, Some(uid)) => Err(format!(
                "{} belongs to user {uid}, who has no name: chown it to {USER}",
                data.display()
            )),
            _ => Err(format!("there is no user {USER}: install PostgreSQL's server")),
        }
    }
}

fn find(passwd: &str, group: &str, wanted: impl Fn(&str, u32) -> bool) -> Option<Owner> {
    passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, uid, gid, ..] = fields[..] else { return None };
        let (uid, gid) = (uid.parse().ok()?, gid.parse().ok()?);
        wanted(name, uid).then(|| Owner {
            name: name.to_owned(),
            uid,
            gid,
            groups: groups(group, name, gid),
        })
    })
}

fn groups(group: &str, name: &str, own: u32) -> Vec<u32> {
    let mut groups = vec![own];
    for line in group.lines() {
        let fields: Vec<&str> = line.split(':').collect();
        let [_, _, gid, members] = fields[..] else { continue };
        if members.split(',').any(|member| member == name) {
            groups.extend(gid.parse::<u32>());
        }
    }
    groups.sort_unstable();
    groups.dedup();
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_its_groups() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\npg:x:101:104:,,,:/var/lib/pg:/bin/bash\n";
        let group = "root:x:0:\nssl-cert:x:103:www,pg\npg:x:104:\nother:x:105:pgx\n";
        let owner = find(passwd, group, |name, _| name == "pg").unwrap();
        assert_eq!((owner.uid, owner.gid, owner.groups), (101, 104, vec![103, 104]));
        assert_eq!(find(passwd, group, |_, uid| uid == 7), None);
    }
}
