//! One entry of a tree as a comparison sees it: only what the sync keeps, so that equal means
//! equal. Pure; the hashes are keyed anew for every comparison, so nobody can prepare a collision.

use std::fmt;

use sha2::{Digest, Sha256};

/// What a sync carries over, and so what is compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Keep {
    pub perms: bool,
    pub owner: bool,
    pub group: bool,
    /// Of everything but directories.
    pub times: bool,
    pub dir_times: bool,
    /// What is not kept of these three kinds is passed over as if it were not there.
    pub links: bool,
    pub devices: bool,
    pub specials: bool,
    pub xattrs: bool,
    pub acls: bool,
    /// Capabilities and `trusted`, which root alone reads or writes.
    pub system_xattrs: bool,
}

impl Keep {
    /// What `rsync -rlptgoD` keeps.
    pub const ARCHIVE: Self = Self {
        perms: true,
        owner: true,
        group: true,
        times: true,
        dir_times: true,
        links: true,
        devices: true,
        specials: true,
        xattrs: false,
        acls: false,
        system_xattrs: false,
    };

    pub fn bits(self) -> u16 {
        let Self { perms, owner, group, times, dir_times, links, devices, specials, .. } = self;
        let Self { xattrs, acls, system_xattrs, .. } = self;
        let all = [perms, owner, group, times, dir_times, links, devices, specials];
        all.into_iter()
            .chain([xattrs, acls, system_xattrs])
            .enumerate()
            .fold(0, |bits, (at, on)| bits | (u16::from(on) << at))
    }

    pub fn from_bits(bits: u16) -> Self {
        let on = |at: u16| bits & (1 << at) != 0;
        Self {
            perms: on(0),
            owner: on(1),
            group: on(2),
            times: on(3),
            dir_times: on(4),
            links: on(5),
            devices: on(6),
            specials: on(7),
            xattrs: on(8),
            acls: on(9),
            system_xattrs: on(10),
        }
    }

    pub fn both(self, other: Self) -> Self {
        Self::from_bits(self.bits() & other.bits())
    }

    pub fn keeps(self, kind: Kind) -> bool {
        match kind {
            Kind::File | Kind::Dir => true,
            Kind::Link => self.links,
            Kind::Char | Kind::Block => self.devices,
            Kind::Fifo | Kind::Socket => self.specials,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    File,
    Dir,
    Link,
    Char,
    Block,
    Fifo,
    Socket,
}

impl Kind {
    pub const ALL: [Self; 7] =
        [Self::File, Self::Dir, Self::Link, Self::Char, Self::Block, Self::Fifo, Self::Socket];
}

/// Fields that the sync does not keep, or that mean nothing for the kind, are zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    pub kind: Kind,
    /// The lower twelve bits.
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    /// Bytes, of files.
    pub size: u64,
    /// Seconds since 1970 and nanoseconds.
    pub mtime: (i64, u32),
    /// Major and minor number, of devices.
    pub rdev: (u32, u32),
    /// Hash of a link's text.
    pub link: u128,
    /// Hash of extended attributes and ACLs.
    pub xattrs: u128,
}

impl Entry {
    /// Length of the encoded form, in bytes.
    pub const LEN: usize = 71;

    /// Takes away what is not compared. `link` and `xattrs` are only ever read when kept.
    pub fn keep_only(mut self, keep: Keep) -> Self {
        let times = if self.kind == Kind::Dir { keep.dir_times } else { keep.times };
        if !keep.perms || self.kind == Kind::Link {
            self.mode = 0;
        }
        if !keep.owner {
            self.uid = 0;
        }
        if !keep.group {
            self.gid = 0;
        }
        if !times {
            self.mtime = (0, 0);
        }
        if self.kind != Kind::File {
            self.size = 0;
        }
        if !matches!(self.kind, Kind::Char | Kind::Block) {
            self.rdev = (0, 0);
        }
        self
    }

    /// The order of [`Attr::ALL`]; nothing when they are equal.
    pub fn differences(&self, other: &Self) -> Attrs {
        if self.kind != other.kind {
            return Attrs::of(Attr::Type);
        }
        let compared = [
            (Attr::Size, self.size != other.size),
            (Attr::Mtime, self.mtime != other.mtime),
            (Attr::Mode, self.mode != other.mode),
            (Attr::Owner, self.uid != other.uid),
            (Attr::Group, self.gid != other.gid),
            (Attr::Link, self.link != other.link),
            (Attr::Device, self.rdev != other.rdev),
            (Attr::Xattrs, self.xattrs != other.xattrs),
        ];
        let differing = compared.iter().filter(|(_, differs)| *differs);
        differing.fold(Attrs::default(), |all, (attr, _)| all.and(*attr))
    }

    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut out = [0; Self::LEN];
        let parts: [&[u8]; 11] = [
            &[self.kind as u8],
            &self.mode.to_be_bytes(),
            &self.uid.to_be_bytes(),
            &self.gid.to_be_bytes(),
            &self.size.to_be_bytes(),
            &self.mtime.0.to_be_bytes(),
            &self.mtime.1.to_be_bytes(),
            &self.rdev.0.to_be_bytes(),
            &self.rdev.1.to_be_bytes(),
            &self.link.to_be_bytes(),
            &self.xattrs.to_be_bytes(),
        ];
        let mut at = 0;
        for part in parts {
            out[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        out
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Attr {
    Type,
    Size,
    Mtime,
    Mode,
    Owner,
    Group,
    Link,
    Device,
    Xattrs,
    Content,
}

impl Attr {
    pub const ALL: [(Self, &str); 10] = [
        (Self::Type, "type"),
        (Self::Size, "size"),
        (Self::Mtime, "mtime"),
        (Self::Mode, "mode"),
        (Self::Owner, "owner"),
        (Self::Group, "group"),
        (Self::Link, "link"),
        (Self::Device, "device"),
        (Self::Xattrs, "xattrs"),
        (Self::Content, "content"),
    ];
}

/// A set of attributes.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Attrs(u16);

impl Attrs {
    pub fn of(attr: Attr) -> Self {
        Self(1 << attr as u16)
    }

    pub fn and(self, attr: Attr) -> Self {
        Self(self.0 | Self::of(attr).0)
    }

    pub fn has(self, attr: Attr) -> bool {
        self.0 & Self::of(attr).0 != 0
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for Attrs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = Attr::ALL.iter().filter(|(attr, _)| self.has(*attr)).map(|(_, name)| *name);
        f.write_str(&names.collect::<Vec<_>>().join(","))
    }
}

/// The key of one comparison, chosen at random by the side that asks.
#[derive(Clone)]
pub struct Key(Sha256);

pub const KEY_LEN: usize = 32;

impl Key {
    pub fn new(key: &[u8; KEY_LEN]) -> Self {
        let mut hasher = Sha256::new();
        // A whole block, so that it is hashed once and not for every entry.
        hasher.update(key);
        hasher.update([0; 64 - KEY_LEN]);
        Self(hasher)
    }

    /// Of parts that cannot run into one another: all but the last have a fixed length.
    fn hash(&self, domain: u8, parts: &[&[u8]]) -> [u8; 32] {
        let mut hasher = self.0.clone();
        hasher.update([domain]);
        parts.iter().for_each(|part| hasher.update(part));
        hasher.finalize().into()
    }

    fn number(&self, domain: u8, parts: &[&[u8]]) -> u128 {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&self.hash(domain, parts)[..16]);
        u128::from_be_bytes(bytes)
    }

    /// An entry's share in the sum of its directory.
    pub fn entry(&self, name: &[u8], entry: &Entry) -> u128 {
        self.number(0, &[&entry.encode(), name])
    }

    /// A sub-directory's content's share in the sum of its directory.
    pub fn tree(&self, name: &[u8], sum: u128) -> u128 {
        self.number(1, &[&sum.to_be_bytes(), name])
    }

    pub fn path(&self, path: &[u8]) -> u64 {
        self.number(2, &[path]) as u64
    }

    pub fn text(&self, text: &[u8]) -> u128 {
        self.number(3, &[text])
    }

    /// An attribute's share in the sum of an entry's attributes.
    pub fn xattr(&self, name: &[u8], value: &[u8]) -> u128 {
        self.number(4, &[&(name.len() as u64).to_be_bytes(), name, value])
    }

    /// Which of 2^`bits` parts of a large directory a name is in.
    pub fn bucket(&self, name: &[u8], bits: u8) -> u32 {
        let hash = (self.number(5, &[name]) >> 96) as u32;
        hash.checked_shr(32 - u32::from(bits.min(32))).unwrap_or(0)
    }

    /// Hashes a file's content piece by piece.
    pub fn content(&self) -> Sha256 {
        let mut hasher = self.0.clone();
        hasher.update([6]);
        hasher
    }
}
