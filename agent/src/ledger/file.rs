//! One small protobuf message in one file: framed, checksummed, replaced atomically. After a crash
//! the file holds the old message or the new one. It knows nothing of what the message means.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use lockstep_transport::durable;
use prost::Message;

/// Longest message, in bytes: a source with the most targets has some 5 MB.
pub const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// What a file begins with; a later form gets another one.
const MAGIC: [u8; 4] = *b"LSF1";
const HEAD_BYTES: usize = 8;

#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("{file}: {source}")]
    Io { file: String, source: io::Error },
    #[error("{file}: is damaged ({why})")]
    Damaged { file: String, why: &'static str },
    #[error("{file}: has {bytes} bytes, at most {MESSAGE_BYTES_MAX} fit")]
    TooLong { file: String, bytes: usize },
}

fn io_error(path: &Path, source: io::Error) -> FileError {
    FileError::Io { file: path.display().to_string(), source }
}

fn frame(message: &impl Message) -> Vec<u8> {
    let body = message.encode_to_vec();
    let mut frame = Vec::with_capacity(HEAD_BYTES + body.len());
    frame.extend_from_slice(&MAGIC);
    frame.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
    frame.extend_from_slice(&body);
    frame
}

fn unframe<M: Message + Default>(bytes: &[u8]) -> Result<M, &'static str> {
    let rest = bytes.strip_prefix(&MAGIC).ok_or("it does not begin as such a file does")?;
    let (sum, body) = rest.split_first_chunk::<4>().ok_or("it is cut short")?;
    if crc32fast::hash(body).to_le_bytes() != *sum {
        return Err("its checksum is wrong");
    }
    M::decode(body).map_err(|_| "it is not of this kind")
}

/// None where there is no such file.
pub fn read<M: Message + Default>(path: &Path) -> Result<Option<M>, FileError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(io_error(path, e)),
    };
    let mut bytes = Vec::new();
    let most = (HEAD_BYTES + MESSAGE_BYTES_MAX + 1) as u64;
    file.take(most).read_to_end(&mut bytes).map_err(|e| io_error(path, e))?;
    let damaged = |why| FileError::Damaged { file: path.display().to_string(), why };
    unframe(&bytes).map(Some).map_err(damaged)
}

/// Durable when it returns.
pub fn write(path: &Path, message: &impl Message) -> Result<(), FileError> {
    let bytes = message.encoded_len();
    if bytes > MESSAGE_BYTES_MAX {
        return Err(FileError::TooLong { file: path.display().to_string(), bytes });
    }
    durable::write(path, &frame(message)).map_err(|e| io_error(path, e))
}

#[cfg(test)]
mod tests {
    use lockstep_proto::agent::v1::Told;
    use proptest::prelude::*;

    use super::*;

    const TOLD: Told = Told { incarnation: 7, revision: 1 << 40, life: 9 };

    #[test]
    fn reads_what_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("told");
        assert!(read::<Told>(&path).unwrap().is_none());
        for revision in [1, 2] {
            write(&path, &Told { revision, ..TOLD }).unwrap();
            assert_eq!(read::<Told>(&path).unwrap().unwrap().revision, revision);
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing else is left");
    }

    proptest! {
        #[test]
        fn any_change_is_noticed(at in 0usize..100, bit in 0u8..8, cut in 0usize..100) {
            let good = frame(&TOLD);
            let mut changed = good.clone();
            changed[at % good.len()] ^= 1 << bit;
            prop_assert!(unframe::<Told>(&changed).is_err());
            prop_assert!(unframe::<Told>(&good[..cut % good.len()]).is_err());
        }

        #[test]
        fn garbage_is_refused_not_a_crash(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(unframe::<Told>(&bytes).is_err());
        }
    }
}
