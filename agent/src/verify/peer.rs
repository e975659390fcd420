//! The asking side's end of a conversation: sends a request, does its own share of the work, and
//! reads the answers, telling the other side that it lives meanwhile.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadHalf, WriteHalf};
use tokio::time::Instant;

use super::compare::CompareError;
use super::wire::{self, Answer, Request, WireError};

/// How often the other side hears that this one lives, and the caller how far it is.
const ALIVE_INTERVAL: Duration = Duration::from_secs(5);

pub struct Peer<S> {
    reader: ReadHalf<S>,
    writer: WriteHalf<S>,
}

impl<S: AsyncRead + AsyncWrite> Peer<S> {
    pub fn new(stream: S) -> Self {
        let (reader, writer) = tokio::io::split(stream);
        Self { reader, writer }
    }

    /// As many answers as asked for, and the result of `own`, which runs at the same time. `tick`
    /// is called now and then.
    pub async fn ask<T>(
        &mut self,
        request: &Request,
        answers: usize,
        own: impl Future<Output = T>,
        tick: &(dyn Fn() + Send + Sync),
    ) -> Result<(Vec<Answer>, T), CompareError> {
        wire::write(&mut self.writer, &request.encode()).await?;
        let reader = &mut self.reader;
        let read = async {
            let mut read = Vec::with_capacity(answers);
            while read.len() < answers {
                let Some(body) = wire::read(reader).await? else {
                    return Err(WireError::Io(std::io::ErrorKind::UnexpectedEof.into()).into());
                };
                match Answer::decode(&body)? {
                    Answer::Alive { .. } => {}
                    Answer::Refused(why) => return Err(CompareError::Refused(why)),
                    answer => read.push(answer),
                }
            }
            Ok(read)
        };
        let both = async {
            let own = async { Ok(own.await) };
            tokio::try_join!(read, own)
        };
        alive(&mut self.writer, both, tick).await?
    }

    pub async fn meanwhile<T>(
        &mut self,
        own: impl Future<Output = T>,
        tick: &(dyn Fn() + Send + Sync),
    ) -> Result<T, CompareError> {
        alive(&mut self.writer, own, tick).await
    }
}

async fn alive<T>(
    writer: &mut (impl AsyncWrite + Unpin),
    work: impl Future<Output = T>,
    tick: &(dyn Fn() + Send + Sync),
) -> Result<T, CompareError> {
    tokio::pin!(work);
    let mut next = Instant::now() + ALIVE_INTERVAL;
    loop {
        match tokio::time::timeout_at(next, &mut work).await {
            Ok(done) => return Ok(done),
            Err(_) => {
                next = Instant::now() + ALIVE_INTERVAL;
                tick();
                wire::write(writer, &Request::Alive.encode()).await?;
            }
        }
    }
}
