//! What the values of rsync's options must look like, so that none names a file outside of the tree
//! and rsync takes each.

/// None: it fits. Else what it must be.
pub type Check = fn(&str) -> Option<&'static str>;

/// Longest value, in bytes.
pub const LENGTH_MAX: usize = 1024;

fn unless(fits: bool, must: &'static str) -> Option<&'static str> {
    (!fits).then_some(must)
}

fn within(text: &str, least: i64, most: i64) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    plain && text.parse().is_ok_and(|number: i64| (least..=most).contains(&number))
}

fn made_of(text: &str, more: &[u8]) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || more.contains(&b))
}

/// Bytes of a size as rsync reads it, with decimals left away: `500K`, `1.5G`, `10MB`, `1GiB-1`.
fn bytes(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
    let plain = |digits: &str| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    if !plain(whole) || !plain(decimals) {
        return None;
    }
    let unit = unit.strip_suffix("+1").or(unit.strip_suffix("-1")).unwrap_or(unit);
    let unit = unit.to_ascii_uppercase();
    let (letter, base) = match unit.strip_suffix("IB").or(unit.strip_suffix('B')) {
        Some("") => ("", 1024),
        Some(letter) if unit.ends_with("IB") => (letter, 1024),
        Some(letter) => (letter, 1000u64),
        None => (unit.as_str(), 1024),
    };
    let power = ["", "K", "M", "G", "T", "P"].iter().position(|known| *known == letter)?;
    whole.parse::<u64>().ok()?.checked_mul(base.pow(power as u32)).filter(|n| *n < 1 << 62)
}

pub fn size(text: &str) -> Option<&'static str> {
    unless(bytes(text).is_some(), "must be a size like 500K, 1.5M or 2G")
}

pub fn max_alloc(text: &str) -> Option<&'static str> {
    unless(bytes(text).is_some_and(|n| n >= 1 << 20), "must be a size of at least 1M")
}

pub fn block_size(text: &str) -> Option<&'static str> {
    let fits = bytes(text).is_some_and(|n| (1..1 << 17).contains(&n)) || text == "128K";
    unless(fits, "must be a size from 1 to 128K")
}

pub fn window(text: &str) -> Option<&'static str> {
    unless(within(text, -1, 86_400), "must be seconds, or -1 for nanoseconds to count")
}

pub fn level(text: &str) -> Option<&'static str> {
    unless(within(text, -131_072, 22), "must be a number up to 22")
}

pub fn threads(text: &str) -> Option<&'static str> {
    unless(within(text, 0, 64), "must be 0 to 64")
}

pub fn seed(text: &str) -> Option<&'static str> {
    unless(within(text, 0, i32::MAX.into()), "must be a number from 0 to 2147483647")
}

/// Names of algorithms, one or two.
pub fn choice(text: &str) -> Option<&'static str> {
    let fits = (1..=2).contains(&text.split(',').count())
        && text.split(',').all(|name| name.len() <= 16 && made_of(name, b""));
    unless(fits, "must be the name of an algorithm, or two with a comma between")
}

pub fn charset(text: &str) -> Option<&'static str> {
    let fits = text == "-"
        || ((1..=2).contains(&text.split(',').count())
            && text.split(',').all(|name| name.len() <= 32 && made_of(name, b"_.-/")));
    unless(fits, "must be LOCAL,REMOTE charsets, such as utf8,latin1")
}

pub fn suffixes(text: &str) -> Option<&'static str> {
    unless(made_of(text, b"/[]:+*-_."), "must be suffixes with / between, such as gz/mp[34]/zip")
}

/// As rsync's --chmod and chmod(1): `D755,F644`, `u=rwX,go-w`.
pub fn modes(text: &str) -> Option<&'static str> {
    let octal = |text: &str| {
        (1..=4).contains(&text.len()) && text.bytes().all(|b| (b'0'..=b'7').contains(&b))
    };
    let symbolic = |text: &str| {
        let Some((who, rest)) = text.find(['+', '-', '=']).map(|at| text.split_at(at)) else {
            return false;
        };
        let what = &rest[1..];
        let copied = matches!(what, "u" | "g" | "o");
        who.bytes().all(|b| b"ugoa".contains(&b))
            && (copied || what.bytes().all(|b| b"rwxXst".contains(&b)))
    };
    let fits = text.split(',').all(|one| {
        let mode = one.strip_prefix(['D', 'F']).unwrap_or(one);
        octal(mode) || symbolic(mode)
    });
    unless(fits, "must be modes as rsync's --chmod takes them, such as D755,F644 or go-w")
}

fn is_account(text: &str) -> bool {
    text.len() <= 32 && made_of(text, b"_.-") && !text.starts_with('-')
}

pub fn chown(text: &str) -> Option<&'static str> {
    let (user, group) = text.split_once(':').unwrap_or((text, ""));
    let fits = [user, group].iter().all(|name| name.is_empty() || is_account(name));
    let one = !user.is_empty() || !group.is_empty();
    unless(fits && one, "must be USER:GROUP, USER or :GROUP")
}

/// `FROM:TO,…` where FROM is a name, a number, a range or a pattern.
pub fn id_map(text: &str) -> Option<&'static str> {
    let fits = text.split(',').all(|pair| {
        pair.split_once(':').is_some_and(|(from, to)| {
            (from.is_empty() || made_of(from, b"_.-*?[]")) && is_account(to)
        })
    });
    unless(fits, "must be FROM:TO pairs with commas between, such as 0-99:nobody,*:mirror")
}

/// Made by rsync in each directory of the tree.
pub fn relative_dir(text: &str) -> Option<&'static str> {
    let fits = text.split('/').all(|part| !matches!(part, "" | "." | ".."));
    unless(fits, "must be relative, without '//', '.' and '..', such as .rsync-partial")
}

/// Of `--include` and `--exclude`: rsync reads `- ` and `+ ` at its start, and takes `!` for an order
/// to forget all others.
pub fn pattern(text: &str) -> Option<&'static str> {
    let own = text.strip_prefix("- ").or(text.strip_prefix("+ ")).unwrap_or(text);
    unless(!own.is_empty() && text != "!", "must be a pattern, and not ! or nothing")
}

/// A rule that reads no file and forgets no other.
pub fn filter(text: &str) -> Option<&'static str> {
    const KINDS: [&str; 12] =
        ["-", "+", "H", "S", "P", "R", "exclude", "include", "hide", "show", "protect", "risk"];
    let fits = text
        .split_once(' ')
        .is_some_and(|(kind, pattern)| KINDS.contains(&kind) && !pattern.is_empty());
    unless(fits, "must be '- PATTERN', '+ PATTERN', or H, S, P or R and a pattern")
}
