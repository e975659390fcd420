//! `cluster url`: what an application gives to libpq so that it finds the primary by itself.

use lockstep_proto::v1;
use serde::Serialize;

use crate::error::Failure;

/// As `-o json` prints it.
#[derive(Serialize, PartialEq, Eq, Debug)]
pub struct Url {
    pub url: String,
}

/// Timeouts bound how long a host that vanished is waited for, when connecting and afterwards.
pub fn of(
    cluster: &v1::Cluster,
    database: &str,
    user: Option<&str>,
    any: bool,
) -> Result<Url, Failure> {
    let places: Vec<&str> = cluster
        .members
        .iter()
        .map(|member| member.postgres.as_str())
        .filter(|place| !place.is_empty())
        .collect();
    if places.is_empty() {
        let problem = format!("no address of a member of {} is known yet", cluster.name);
        return Err(Failure::failed(problem));
    }
    let user = user.map(|user| format!("{}@", escaped(user))).unwrap_or_default();
    let session = if any { "prefer-standby" } else { "read-write" };
    let url = format!(
        "postgresql://{user}{}/{}?target_session_attrs={session}&connect_timeout=2&keepalives_idle=5\
         &keepalives_interval=1&keepalives_count=3&tcp_user_timeout=5000",
        places.join(","),
        escaped(database),
    );
    Ok(Url { url })
}

/// What may not stand in a part of a URL, as %XX.
fn escaped(text: &str) -> String {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~".contains(&b);
    text.bytes()
        .map(|b| if is_plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_members_are_in_one_string() {
        let member = |node: &str, postgres: &str| v1::ClusterMember {
            node: node.to_owned(),
            postgres: postgres.to_owned(),
            ..Default::default()
        };
        let mut cluster = v1::Cluster {
            name: "main".to_owned(),
            members: vec![member("db1", "10.0.0.1:5432"), member("db2", "[fd00::2]:5433")],
            ..Default::default()
        };
        let url = of(&cluster, "my app", Some("a@b"), false).unwrap().url;
        assert!(
            url.starts_with("postgresql://a%40b@10.0.0.1:5432,[fd00::2]:5433/my%20app?"),
            "{url}"
        );
        assert!(url.contains("target_session_attrs=read-write&"), "{url}");
        assert!(of(&cluster, "x", None, true).unwrap().url.contains("=prefer-standby&"));
        cluster.members.clear();
        assert!(of(&cluster, "x", None, false).is_err());
    }
}
