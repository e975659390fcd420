//! The target's side of a comparison: answers one source's questions about the one directory of its
//! assignment. It reads only, and bounds what a question can cost.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadHalf, WriteHalf};

use super::view::{Listed, Meter, Side, View};
use super::wire::{self, Answer, Request, VERSION, WireError};

/// How often it is said that long work goes on.
const ALIVE_INTERVAL: Duration = Duration::from_secs(5);

/// What a conversation was about.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Served {
    /// The whole tree.
    pub whole: bool,
}

/// Serves a conversation to its end. Dropping it ends it.
pub async fn serve<S: AsyncRead + AsyncWrite>(stream: S, side: &Side) -> Result<Served, WireError> {
    let mut served = Served::default();
    let (reader, writer) = tokio::io::split(stream);
    let mut line = Line { reader, writer, meter: Meter::default() };
    let Some(hello) = line.next().await? else { return Ok(served) };
    let Request::Hello { version, key, keep, rules } = hello else {
        return Err(WireError::Malformed("no greeting"));
    };
    if version != VERSION {
        let why = "the agents' versions differ too much to compare";
        line.answer(&Answer::Refused(why.to_owned())).await?;
        return Ok(served);
    }
    if rules != side.rules {
        let why = "the source and the target do not have the same options of the sync yet";
        line.answer(&Answer::Refused(why.to_owned())).await?;
        return Ok(served);
    }
    let keep = keep.both(side.keep);
    let mut view = match View::open(side, &key, keep).await {
        Ok(view) => view,
        Err(error) => {
            let why = format!("cannot read {}: {error}", side.root.display());
            line.answer(&Answer::Refused(why)).await?;
            return Ok(served);
        }
    };
    line.answer(&Answer::Ready { keep }).await?;
    while let Some(request) = line.next().await? {
        served.whole |= request == Request::Tree;
        line.obey(request, &mut view).await?;
    }
    Ok(served)
}

struct Line<S> {
    reader: ReadHalf<S>,
    writer: WriteHalf<S>,
    meter: Meter,
}

impl<S: AsyncRead + AsyncWrite> Line<S> {
    async fn next(&mut self) -> Result<Option<Request>, WireError> {
        let frame = wire::read(&mut self.reader).await?;
        frame.map(|body| Request::decode(&body)).transpose()
    }

    async fn answer(&mut self, answer: &Answer) -> Result<(), WireError> {
        wire::write(&mut self.writer, &answer.encode()).await
    }

    async fn obey(&mut self, request: Request, view: &mut View) -> Result<(), WireError> {
        match request {
            Request::Hello { .. } => return Err(WireError::Malformed("a second greeting")),
            Request::Alive => {}
            Request::Tree => {
                let walk = view.walk(&self.meter);
                let answer = match alive(&mut self.writer, &self.meter, walk).await? {
                    Ok((sum, walked)) => Answer::Tree { sum, walked },
                    Err(error) => Answer::Refused(format!("cannot read the directory: {error}")),
                };
                self.answer(&answer).await?;
            }
            Request::Sums(parts) => {
                for part in parts {
                    let sums = view.bucket_sums(part.dir, part.bits);
                    let sums = alive(&mut self.writer, &self.meter, sums).await?;
                    self.answer(&sums.map_or(Answer::Gone, Answer::Sums)).await?;
                }
            }
            Request::List(parts) => {
                for part in parts {
                    let listed = view.list(part);
                    let answer = match alive(&mut self.writer, &self.meter, listed).await? {
                        Listed::Entries(listing) => Answer::Listing(listing),
                        Listed::TooMany(count) => Answer::TooMany(count),
                        Listed::Gone => Answer::Gone,
                    };
                    self.answer(&answer).await?;
                }
            }
            Request::Look { content, paths } => {
                let seen = view.look_all(&paths, content, &self.meter);
                let seen = alive(&mut self.writer, &self.meter, seen).await?;
                self.answer(&Answer::Seen(seen)).await?;
            }
        }
        Ok(())
    }
}

/// Says that work goes on while it does.
async fn alive<T>(
    writer: &mut (impl AsyncWrite + Unpin),
    meter: &Meter,
    work: impl Future<Output = T>,
) -> Result<T, WireError> {
    tokio::pin!(work);
    loop {
        match tokio::time::timeout(ALIVE_INTERVAL, &mut work).await {
            Ok(done) => return Ok(done),
            Err(_) => {
                let alive = Answer::Alive { entries: meter.entries(), bytes: meter.bytes() };
                wire::write(writer, &alive.encode()).await?;
            }
        }
    }
}
