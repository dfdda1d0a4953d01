//! The streams of a connection.
//!
//! [`Session::start`] returns the session and a driver. The driver reads and writes the connection and must be polled;
//! dropping it ends all streams. Opening, writing and reading streams can happen in any task.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::sync::{mpsc, oneshot};

use super::SpdyError;
use super::frame::{Frame, FrameReader, FrameWriter, PROTOCOL_ERROR, REFUSED_STREAM};
use super::headers::Headers;
use crate::PIECE;

/// Maximum number of streams of a connection that the peer has not ended.
const MAX_STREAMS: usize = 1024;
/// Pieces of data that wait for the reader of a stream. Beyond them, the connection is not read.
const QUEUED_PIECES: usize = 8;
/// Frames that wait to be written.
const QUEUED_FRAMES: usize = 8;
/// Answers to the peer's control frames that wait to be written.
const QUEUED_ANSWERS: usize = 64;
/// Streams of the peer that wait to be accepted.
const QUEUED_STREAMS: usize = 64;
/// Bytes that are written together.
const WRITE_BYTES: usize = 64 << 10;

/// The side of a connection, which determines the numbers of its streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Sent the request that was upgraded; its streams have odd numbers.
    Client,
    /// Accepted the upgrade; its streams have even numbers.
    Server,
}

/// A handle to the connection.
pub struct Session {
    shared: Arc<Shared>,
    frames: mpsc::Sender<Frame>,
    accepted: mpsc::Receiver<Stream>,
}

/// A stream of a connection. Dropping the writer without finishing it leaves the peer waiting until the connection
/// ends.
pub struct Stream {
    /// The headers with which the stream was opened.
    pub headers: Headers,
    /// The data that the peer sends.
    pub reader: StreamReader,
    /// Sends data.
    pub writer: StreamWriter,
}

/// Reads the data of a stream.
pub struct StreamReader {
    pieces: mpsc::Receiver<Piece>,
}

/// Sends data on a stream.
pub struct StreamWriter {
    id: u32,
    frames: mpsc::Sender<Frame>,
    finished: bool,
}

/// The connection has ended, so nothing can be sent or received.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the connection has ended")]
pub struct Ended;

enum Piece {
    Data(Bytes),
    /// The peer has finished the stream.
    End,
}

/// The streams that the peer has not ended.
struct Shared {
    role: Role,
    streams: Mutex<Streams>,
}

#[derive(Default)]
struct Streams {
    /// The number of the next stream of this side; 0 after the end of the connection.
    next: u32,
    open: HashMap<u32, Receiving>,
}

struct Receiving {
    pieces: mpsc::Sender<Piece>,
    /// Notified when the peer accepts the stream.
    reply: Option<oneshot::Sender<()>>,
}

impl Session {
    /// Starts to use an upgraded connection. Returns the session and its driver, whose result is `Ok` at the end of the
    /// connection, or when the session and all writers of streams are dropped.
    pub fn start<S>(connection: S, role: Role) -> (Self, impl Future<Output = Result<(), SpdyError>>)
    where
        S: AsyncRead + AsyncWrite,
    {
        let next = match role {
            Role::Client => 1,
            Role::Server => 2,
        };
        let streams = Mutex::new(Streams { next, open: HashMap::new() });
        let shared = Arc::new(Shared { role, streams });
        let (frames, to_write) = mpsc::channel(QUEUED_FRAMES);
        let (answers, to_answer) = mpsc::channel(QUEUED_ANSWERS);
        let (accept, accepted) = mpsc::channel(QUEUED_STREAMS);
        let (reads, writes) = split(connection);
        let incoming = Incoming { shared: Arc::clone(&shared), frames: frames.downgrade(), answers, accept };
        let driver = async move {
            let shared = Arc::clone(&incoming.shared);
            let ended = tokio::select! {
                ended = incoming.run(reads) => ended,
                ended = write_frames(writes, to_write, to_answer) => ended,
            };
            *shared.streams.lock() = Streams::default();
            ended
        };
        (Self { shared, frames, accepted }, driver)
    }

    /// Opens a stream and waits until the peer has accepted it.
    ///
    /// # Errors
    /// The connection ends or the peer refuses the stream.
    pub async fn open(&self, headers: Headers) -> Result<Stream, Ended> {
        let (pieces, reader) = mpsc::channel(QUEUED_PIECES);
        let (reply, accepted) = oneshot::channel();
        // Numbers must be sent in ascending order, so the place in the queue is taken first.
        let place = self.frames.reserve().await.map_err(|_| Ended)?;
        let id = {
            let mut streams = self.shared.streams.lock();
            let id = streams.next;
            if id == 0 || streams.open.len() >= MAX_STREAMS {
                return Err(Ended);
            }
            streams.next = id.checked_add(2).filter(|next| i32::try_from(*next).is_ok()).unwrap_or_default();
            streams.open.insert(id, Receiving { pieces, reply: Some(reply) });
            place.send(Frame::SynStream { id, fin: false, headers: headers.clone() });
            id
        };
        accepted.await.map_err(|_| Ended)?;
        let writer = StreamWriter { id, frames: self.frames.clone(), finished: false };
        Ok(Stream { headers, reader: StreamReader { pieces: reader }, writer })
    }

    /// Waits for the next stream that the peer opens; `None` after the end of the connection.
    pub async fn accept(&mut self) -> Option<Stream> {
        self.accepted.recv().await
    }
}

impl StreamReader {
    /// Returns the next piece of data; `None` when the peer has finished the stream.
    ///
    /// # Errors
    /// The connection has ended or the stream was reset before the peer finished it.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Ended> {
        match self.pieces.recv().await {
            Some(Piece::Data(bytes)) => Ok(Some(bytes)),
            Some(Piece::End) => Ok(None),
            None => Err(Ended),
        }
    }
}

impl StreamWriter {
    /// Sends data. Waits while the connection does not accept it.
    ///
    /// # Errors
    /// The connection has ended.
    pub async fn write(&mut self, mut bytes: Bytes) -> Result<(), Ended> {
        while !bytes.is_empty() && !self.finished {
            let piece = bytes.split_to(bytes.len().min(PIECE));
            let frame = Frame::Data { id: self.id, fin: false, bytes: piece };
            self.frames.send(frame).await.map_err(|_| Ended)?;
        }
        Ok(())
    }

    /// Tells the peer that no more data follows. Data can still be received.
    ///
    /// # Errors
    /// The connection has ended.
    pub async fn finish(&mut self) -> Result<(), Ended> {
        if std::mem::replace(&mut self.finished, true) {
            return Ok(());
        }
        let frame = Frame::Data { id: self.id, fin: true, bytes: Bytes::new() };
        self.frames.send(frame).await.map_err(|_| Ended)
    }
}

/// Handles the frames of the peer.
struct Incoming {
    shared: Arc<Shared>,
    frames: mpsc::WeakSender<Frame>,
    answers: mpsc::Sender<Frame>,
    accept: mpsc::Sender<Stream>,
}

impl Incoming {
    async fn run<S: AsyncRead>(self, connection: ReadHalf<S>) -> Result<(), SpdyError> {
        let mut frames = FrameReader::new(connection);
        while let Some(frame) = frames.next().await? {
            match frame {
                Frame::SynStream { id, fin, headers } => self.open(id, fin, headers)?,
                Frame::SynReply { id, fin, .. } => {
                    if let Some(reply) = self.take_reply(id) {
                        // The opener may have gone.
                        let _ = reply.send(());
                    }
                    if fin {
                        self.finish(id).await;
                    }
                }
                Frame::Data { id, fin, bytes } => {
                    self.receive(id, bytes).await;
                    if fin {
                        self.finish(id).await;
                    }
                }
                Frame::Headers { id, fin: true, .. } => self.finish(id).await,
                Frame::Reset { id, .. } => drop(self.shared.streams.lock().open.remove(&id)),
                Frame::Ping(id) if self.is_of_peer(id) => self.answer(Frame::Ping(id))?,
                Frame::Ping(_) | Frame::Headers { .. } | Frame::GoAway { .. } => {}
            }
        }
        Ok(())
    }

    fn take_reply(&self, id: u32) -> Option<oneshot::Sender<()>> {
        self.shared.streams.lock().open.get_mut(&id)?.reply.take()
    }

    /// Accepts a stream of the peer.
    fn open(&self, id: u32, fin: bool, headers: Headers) -> Result<(), SpdyError> {
        let Some(sender) = self.frames.upgrade().filter(|_| self.is_of_peer(id)) else {
            return self.answer(Frame::Reset { id, status: PROTOCOL_ERROR });
        };
        let mut streams = self.shared.streams.lock();
        let place = self.accept.try_reserve().ok().filter(|_| streams.open.len() < MAX_STREAMS);
        let Some(place) = place.filter(|_| !streams.open.contains_key(&id)) else {
            drop(streams);
            return self.answer(Frame::Reset { id, status: REFUSED_STREAM });
        };
        let (pieces, reader) = mpsc::channel(QUEUED_PIECES);
        if fin {
            // The queue is empty, so there is room.
            let _ = pieces.try_send(Piece::End);
        } else {
            streams.open.insert(id, Receiving { pieces, reply: None });
        }
        drop(streams);
        self.answer(Frame::SynReply { id, fin: false, headers: Headers::default() })?;
        let writer = StreamWriter { id, frames: sender, finished: false };
        place.send(Stream { headers, reader: StreamReader { pieces: reader }, writer });
        Ok(())
    }

    /// Passes data to the reader of a stream. Waits while its queue is full; drops the data if nobody reads it.
    async fn receive(&self, id: u32, bytes: Bytes) {
        let queue = self.shared.streams.lock().open.get(&id).map(|stream| stream.pieces.clone());
        if let Some(queue) = queue.filter(|_| !bytes.is_empty()) {
            let _ = queue.send(Piece::Data(bytes)).await;
        }
    }

    async fn finish(&self, id: u32) {
        let stream = self.shared.streams.lock().open.remove(&id);
        if let Some(stream) = stream {
            let _ = stream.pieces.send(Piece::End).await;
        }
    }

    /// Sends an answer without waiting, because waiting for a peer that waits for this side would never end.
    fn answer(&self, frame: Frame) -> Result<(), SpdyError> {
        self.answers.try_send(frame).map_err(|_| SpdyError::Flood)
    }

    /// Returns whether the peer chose this number of a stream or ping.
    fn is_of_peer(&self, id: u32) -> bool {
        (id % 2 == 1) == (self.shared.role == Role::Server)
    }
}

/// Writes frames, answers first, until no sender is left.
async fn write_frames<S: AsyncWrite>(
    mut connection: WriteHalf<S>,
    mut frames: mpsc::Receiver<Frame>,
    mut answers: mpsc::Receiver<Frame>,
) -> Result<(), SpdyError> {
    let mut writer = FrameWriter::new()?;
    let mut bytes = BytesMut::new();
    loop {
        let frame = tokio::select! {
            biased;
            Some(answer) = answers.recv() => answer,
            frame = frames.recv() => match frame {
                Some(frame) => frame,
                None => break,
            },
        };
        writer.encode(&frame, &mut bytes)?;
        // Frames that are already queued leave together.
        while bytes.len() < WRITE_BYTES
            && let Ok(frame) = answers.try_recv().or_else(|_| frames.try_recv())
        {
            writer.encode(&frame, &mut bytes)?;
        }
        connection.write_all(&bytes).await?;
        connection.flush().await?;
        bytes.clear();
    }
    // The peer may have gone.
    let _ = connection.shutdown().await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, DuplexStream, duplex};
    use tokio::time::timeout;

    use super::*;

    const PIPE: usize = 4 << 10;

    fn pair() -> (Session, Session) {
        let (one, other) = duplex(PIPE);
        let (client, drive_client) = Session::start(one, Role::Client);
        let (server, drive_server) = Session::start(other, Role::Server);
        tokio::spawn(drive_client);
        tokio::spawn(drive_server);
        (client, server)
    }

    /// Starts a session whose peer is the returned connection.
    fn session(role: Role) -> (Session, DuplexStream, tokio::task::JoinHandle<Result<(), SpdyError>>) {
        let (near, far) = duplex(PIPE);
        let (session, driver) = Session::start(near, role);
        (session, far, tokio::spawn(driver))
    }

    fn encode(frames: &[Frame]) -> BytesMut {
        let (mut writer, mut bytes) = (FrameWriter::new().unwrap(), BytesMut::new());
        for frame in frames {
            writer.encode(frame, &mut bytes).unwrap();
        }
        bytes
    }

    async fn read_all(reader: &mut StreamReader) -> Result<Vec<u8>, Ended> {
        let mut all = Vec::new();
        while let Some(piece) = reader.next().await? {
            all.extend_from_slice(&piece);
        }
        Ok(all)
    }

    #[tokio::test]
    async fn a_stream_carries_data_both_ways_and_is_half_closed() {
        let (client, mut server) = pair();
        let opened = client.open(Headers::new([("streamType", "stdin")]));
        let (opened, accepted) = tokio::join!(opened, server.accept());
        let (mut near, mut far) = (opened.unwrap(), accepted.unwrap());
        assert_eq!(far.headers.get("streamType"), Some("stdin"));
        let large = Bytes::from((0..200_000_u32).map(|byte| byte as u8).collect::<Vec<_>>());
        let send = async {
            near.writer.write(large.clone()).await.unwrap();
            near.writer.finish().await.unwrap();
            near.writer.finish().await.unwrap();
        };
        let (received, ()) = tokio::join!(read_all(&mut far.reader), send);
        assert_eq!(received.unwrap(), large);
        // The other direction is still open.
        far.writer.write(Bytes::from_static(b"answer")).await.unwrap();
        far.writer.finish().await.unwrap();
        assert_eq!(read_all(&mut near.reader).await.unwrap(), b"answer");
    }

    #[tokio::test]
    async fn streams_of_both_sides_have_different_numbers() {
        let (client, mut server) = pair();
        let (mut nears, mut fars) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            let (near, far) = tokio::join!(client.open(Headers::default()), server.accept());
            nears.push(near.unwrap());
            fars.push(far.unwrap());
        }
        for (index, near) in nears.iter_mut().enumerate() {
            near.writer.write(Bytes::from(vec![index as u8])).await.unwrap();
        }
        for (index, far) in fars.iter_mut().enumerate() {
            assert_eq!(far.reader.next().await.unwrap().unwrap()[..], [index as u8]);
        }
        let ids: Vec<u32> = nears.iter().map(|stream| stream.writer.id).collect();
        assert_eq!(ids, [1, 3, 5]);
    }

    #[tokio::test]
    async fn the_end_of_the_connection_differs_from_the_end_of_a_stream() {
        let (client, mut server) = pair();
        let (near, far) = tokio::join!(client.open(Headers::default()), server.accept());
        let mut near = near.unwrap();
        drop((server, far));
        assert_eq!(near.reader.next().await, Err(Ended));
        assert_eq!(client.open(Headers::default()).await.err(), Some(Ended));
    }

    #[tokio::test]
    async fn a_stream_that_is_not_read_stops_the_connection_and_uses_no_memory() {
        let (mut server, mut peer, _driver) = session(Role::Server);
        let open = encode(&[Frame::SynStream { id: 1, fin: false, headers: Headers::default() }]);
        peer.write_all(&open).await.unwrap();
        let mut stream = server.accept().await.unwrap();
        let flood = encode(&[Frame::Data { id: 1, fin: true, bytes: vec![b'x'; 4 << 20].into() }]);
        let limit = Duration::from_millis(200);
        assert!(timeout(limit, peer.write_all(&flood)).await.is_err(), "the peer is slowed down");
        drop(peer);
        let mut received = 0;
        while let Ok(Some(piece)) = stream.reader.next().await {
            received += piece.len();
        }
        assert!(received <= (QUEUED_PIECES + 2) * 2 * PIECE, "{received}");
    }

    #[tokio::test]
    async fn answers_pings_of_the_peer_only() {
        let (_session, mut peer, _driver) = session(Role::Client);
        peer.write_all(&encode(&[Frame::Ping(1), Frame::Ping(2)])).await.unwrap();
        let mut answer = [0; 12];
        peer.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer[..], encode(&[Frame::Ping(2)])[..]);
    }

    #[tokio::test]
    async fn refuses_streams_that_violate_the_protocol() {
        let (_session, peer, _driver) = session(Role::Client);
        let (reads, mut writes) = split(peer);
        let stream = |id| Frame::SynStream { id, fin: false, headers: Headers::default() };
        // An odd number is the client's own.
        writes.write_all(&encode(&[stream(1)])).await.unwrap();
        let mut frames = FrameReader::new(reads);
        let refused = frames.next().await.unwrap();
        assert_eq!(refused, Some(Frame::Reset { id: 1, status: PROTOCOL_ERROR }));
    }

    #[tokio::test]
    async fn a_flood_of_control_frames_ends_the_connection() {
        let (_session, mut peer, driver) = session(Role::Client);
        let pings = encode(&vec![Frame::Ping(2); 10_000]);
        // The peer does not read the answers.
        let _ = peer.write_all(&pings).await;
        assert!(matches!(driver.await.unwrap(), Err(SpdyError::Flood)));
    }

    #[tokio::test]
    async fn dropping_the_session_closes_the_connection() {
        let (session, mut peer, driver) = session(Role::Client);
        drop(session);
        let mut rest = Vec::new();
        peer.read_to_end(&mut rest).await.unwrap();
        assert!(rest.is_empty());
        driver.await.unwrap().unwrap();
    }
}
