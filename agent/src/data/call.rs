//! What `rsh` and its agent say to each other on the agent's local socket: one call with rsync's two
//! descriptors, and at the end one line. Only processes of the agent's own user are heard.

use std::io::{self, IoSlice, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lockstep_model::NodeName;
use rustix::fs::{Mode, OFlags};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use tokio::sync::Semaphore;

use super::header::{HEADER_MAX, HeaderError, Request};

/// Of `rsh`, in the data directory.
pub const SOCKET: &str = "rsh.sock";
/// Calls that wait to be taken.
const BACKLOG_MAX: i32 = 64;
/// After a failed accept(2), which is almost always a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Longest call and longest verdict, in bytes.
const CALL_MAX: usize = 2 + HEADER_MAX + 1 + 255;
const VERDICT_MAX: u64 = 2048;

/// What is wanted of a data port, and of whose.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Call {
    pub request: Request,
    pub node: NodeName,
}

impl Call {
    fn encode(&self) -> Vec<u8> {
        let mut out = self.request.encode();
        out.extend(self.node.as_str().as_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Result<Self, HeaderError> {
        let malformed = HeaderError::Malformed;
        let (len, rest) = bytes.split_first_chunk().ok_or(malformed("it is cut short"))?;
        let len = usize::from(u16::from_be_bytes(*len));
        let (request, node) = rest.split_at_checked(len).ok_or(malformed("it is cut short"))?;
        let node = str::from_utf8(node).map_err(|_| malformed("the node's name is not text"))?;
        Ok(Self { request: Request::decode(request)?, node: node.parse()? })
    }
}

/// The agent's side. One agent at a time has a data directory, so what stands there is left over.
pub fn listen(dir: &Path, name: &str) -> io::Result<UnixListener> {
    let dir = open(dir)?;
    match rustix::fs::unlinkat(&dir, name, rustix::fs::AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    let socket = socket(SocketFlags::NONBLOCK)?;
    rustix::net::bind(&socket, &address(dir.as_fd(), name)?)?;
    // Before it listens nobody can connect.
    let owner_only = Mode::RUSR | Mode::WUSR;
    rustix::fs::chmodat(&dir, name, owner_only, rustix::fs::AtFlags::empty())?;
    rustix::net::listen(&socket, BACKLOG_MAX)?;
    Ok(socket.into())
}

/// The caller's side.
pub fn connect(dir: &Path, name: &str) -> io::Result<UnixStream> {
    let dir = open(dir)?;
    let socket = socket(SocketFlags::empty())?;
    rustix::net::connect(&socket, &address(dir.as_fd(), name)?)?;
    Ok(socket.into())
}

fn open(dir: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(dir, flags, Mode::empty())?)
}

fn socket(flags: SocketFlags) -> io::Result<OwnedFd> {
    let flags = flags | SocketFlags::CLOEXEC;
    Ok(rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?)
}

/// A socket's path has at most 107 bytes, a data directory's many more.
fn address(dir: BorrowedFd<'_>, name: &str) -> io::Result<SocketAddrUnix> {
    Ok(SocketAddrUnix::new(format!("/proc/self/fd/{}/{name}", dir.as_raw_fd()))?)
}

/// Has calls of the agent's own user served until it is dropped, at most so many at once. `of` names
/// the callers in the log.
pub async fn take<Serve>(
    listener: tokio::net::UnixListener,
    of: &str,
    calls_max: usize,
    serve: impl Fn(tokio::net::UnixStream) -> Serve,
) where
    Serve: Future<Output = ()> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(calls_max));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::error!(%error, "cannot take a call of {of}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        if !is_own(&stream) {
            continue;
        }
        let Ok(place) = places.clone().try_acquire_owned() else {
            tracing::error!("refused a call of {of}: too many are open");
            continue;
        };
        let served = serve(stream);
        tokio::spawn(async move {
            served.await;
            drop(place);
        });
    }
}

/// Whether a process of the agent's own user calls.
fn is_own(stream: &tokio::net::UnixStream) -> bool {
    let uid = stream.peer_cred().ok().map(|cred| cred.uid());
    let own = uid == Some(rustix::process::geteuid().as_raw());
    if !own {
        tracing::warn!(target: "audit", ?uid, "refused a local call of another user");
    }
    own
}

/// Hands over where rsync reads and writes; the agent has them from then on.
pub fn send(
    to: &UnixStream,
    call: &Call,
    stdin: BorrowedFd<'_>,
    stdout: BorrowedFd<'_>,
) -> io::Result<()> {
    let descriptors = [stdin, stdout];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
    let call = call.encode();
    let sent =
        rustix::net::sendmsg(to, &[IoSlice::new(&call)], &mut ancillary, SendFlags::NOSIGNAL)?;
    // The kernel takes so few bytes whole.
    if sent == call.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// One call with rsync's standard input and output as `send` gave them; `WouldBlock` when none has
/// come yet.
pub fn receive(from: impl AsFd) -> io::Result<(Call, OwnedFd, OwnedFd)> {
    let mut bytes = [0; CALL_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    let got =
        rustix::net::recvmsg(from, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, flags)?;
    let mut descriptors = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            descriptors.extend(received);
        }
    }
    let call = Call::decode(&bytes[..got.bytes]).map_err(io::Error::other)?;
    match <[OwnedFd; 2]>::try_from(descriptors) {
        Ok([stdin, stdout]) => Ok((call, stdin, stdout)),
        Err(_) => Err(io::Error::other("a call brings two descriptors")),
    }
}

/// Waits for the end of the transfer: a line for people when it failed, nothing when it did not.
/// An agent that ends before is an error.
pub fn read_verdict(from: &mut UnixStream) -> io::Result<String> {
    let mut text = String::new();
    from.take(VERDICT_MAX).read_to_string(&mut text)?;
    match text.strip_suffix('\n') {
        Some(line) => Ok(line.to_owned()),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// What `read_verdict` reads; `line` is empty after a success.
pub fn verdict(line: &str) -> Vec<u8> {
    let line = line.replace('\n', " ");
    let end = line.floor_char_boundary(VERDICT_MAX as usize - 1);
    format!("{}\n", &line[..end]).into_bytes()
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::data::header::{Header, Op};

    fn call() -> Call {
        let header = Header { sync: "webroot".parse().unwrap(), op: Op::Push { pass: true } };
        Call { request: (&header).into(), node: "web1".parse().unwrap() }
    }

    #[test]
    fn descriptors_come_through_a_data_directory_of_any_length() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("d".repeat(200)).join("e".repeat(200));
        std::fs::create_dir_all(&deep).unwrap();
        let listener = listen(&deep, SOCKET).unwrap();
        let mode = std::fs::metadata(deep.join(SOCKET)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        // An agent that was killed left it.
        drop(listener);
        let listener = listen(&deep, SOCKET).unwrap();
        listener.set_nonblocking(false).unwrap();

        let mut ours = connect(&deep, SOCKET).unwrap();
        let (mut theirs, _) = listener.accept().unwrap();
        let (mut process, handed) = UnixStream::pair().unwrap();
        send(&ours, &call(), handed.as_fd(), handed.as_fd()).unwrap();
        drop(handed);
        let (got, stdin, stdout) = receive(&theirs).unwrap();
        assert_eq!(got, call());
        UnixStream::from(stdout).write_all(b"through").unwrap();
        drop(stdin);
        let mut text = String::new();
        process.read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");

        theirs.write_all(&verdict("one\nline")).unwrap();
        drop(theirs);
        assert_eq!(read_verdict(&mut ours).unwrap(), "one line");
    }

    #[test]
    fn what_is_no_call_is_an_error() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (&ours).write_all(&call().encode()).unwrap();
        let error = receive(&theirs).unwrap_err();
        assert!(error.to_string().contains("two descriptors"), "{error}");
        (&ours).write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
        assert!(receive(&theirs).is_err());
        let bytes = call().encode();
        for cut in 0..bytes.len() - "web1".len() + 1 {
            assert!(Call::decode(&bytes[..cut]).is_err());
        }
        drop(theirs);
        let mut ours = ours;
        assert!(read_verdict(&mut ours).is_err(), "the agent has ended");
    }
}
