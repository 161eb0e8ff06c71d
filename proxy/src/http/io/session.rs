//! rustls' state machine without its buffers: what it reads, decrypts, and wants to send, one step at a time.

use bytes::{Buf, BytesMut};
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus, WriteTraffic,
};
use rustls::{CommonState, Error};

/// A record holds at most so many bytes of plaintext (RFC 8446 section 5.1).
pub(crate) const RECORD: usize = 16 * 1024;
/// What a record is longer than its plaintext, at most (RFC 8446 section 5.2; TLS 1.2 allows more, rustls does not send it).
pub(crate) const OVERHEAD: usize = 5 + 256;
/// A record's header.
pub(crate) const HEADER: usize = 5;

/// Either end of a connection.
pub(crate) enum Session {
    Client(UnbufferedClientConnection),
    Server(UnbufferedServerConnection),
}

/// What one step found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Something was decrypted or encoded; there may be more.
    Again,
    /// Nothing whole is left; what was to be encrypted is.
    Open,
    /// The handshake needs more of the peer.
    Blocked,
    /// The peer said that it sends nothing any more (close_notify).
    Closed,
}

/// Something to send, done by the first step that may send.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Job<'a> {
    Nothing,
    /// At most [`RECORD`] bytes.
    Encrypt(&'a [u8]),
    Close,
}

/// Bytes for the network; the buffer only grows, so that nothing is cleared twice.
#[derive(Debug, Default)]
pub(crate) struct Sending {
    buffer: Vec<u8>,
    used: usize,
}

impl Sending {
    /// What is to be sent.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.buffer.get(..self.used).unwrap_or_default()
    }

    /// Forgets what was sent.
    pub(crate) fn clear(&mut self) {
        self.used = 0;
    }

    fn room(&mut self, least: usize) -> &mut [u8] {
        if self.buffer.len() < self.used + least {
            self.buffer.resize(self.used + least, 0);
        }
        self.buffer.get_mut(self.used..).unwrap_or_default()
    }
}

trait Records {
    type Data;
    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;
}

impl Records for UnbufferedClientConnection {
    type Data = ClientConnectionData;
    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }
}

impl Records for UnbufferedServerConnection {
    type Data = ServerConnectionData;
    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }
}

impl Session {
    /// What is known of the connection.
    pub(crate) fn state(&self) -> &CommonState {
        match self {
            Session::Client(client) => client,
            Session::Server(server) => server,
        }
    }

    /// One step: takes whole records from `incoming`, gives plaintext to `plain` and what is to be sent to `sending`.
    pub(crate) fn step(
        &mut self,
        incoming: &mut BytesMut,
        plain: &mut BytesMut,
        sending: &mut Sending,
        job: &mut Job<'_>,
    ) -> Result<Step, Error> {
        match self {
            Session::Client(client) => step(client, incoming, plain, sending, job),
            Session::Server(server) => step(server, incoming, plain, sending, job),
        }
    }

    /// After an error: the alert that tells the peer, if there is one.
    pub(crate) fn last_words(&mut self, incoming: &mut BytesMut, sending: &mut Sending) {
        // One step gives the alert that waits; another one would read the same bytes again.
        let _ = self.step(incoming, &mut BytesMut::new(), sending, &mut Job::Nothing);
    }
}

fn step<R: Records>(
    session: &mut R,
    incoming: &mut BytesMut,
    plain: &mut BytesMut,
    sending: &mut Sending,
    job: &mut Job<'_>,
) -> Result<Step, Error> {
    let UnbufferedStatus { discard, state } = session.process(incoming);
    let done = match state {
        Ok(ConnectionState::ReadTraffic(mut traffic)) => {
            let mut read = Ok(Step::Again);
            while let Some(record) = traffic.next_record() {
                match record {
                    Ok(record) => plain.extend_from_slice(record.payload),
                    Err(error) => read = Err(error),
                }
            }
            read
        }
        Ok(ConnectionState::EncodeTlsData(encode)) => encode_into(encode, sending).map(|()| Step::Again),
        Ok(ConnectionState::TransmitTlsData(transmit)) => {
            transmit.done();
            Ok(Step::Again)
        }
        Ok(ConnectionState::WriteTraffic(traffic)) => run(traffic, sending, job).map(|()| Step::Open),
        Ok(ConnectionState::BlockedHandshake) => Ok(Step::Blocked),
        Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => Ok(Step::Closed),
        Ok(_) => Err(Error::General("early data, which is never offered".into())),
        Err(error) => Err(error),
    };
    incoming.advance(discard);
    done
}

fn encode_into<D>(mut encode: EncodeTlsData<'_, D>, sending: &mut Sending) -> Result<(), Error> {
    let needed = match encode.encode(&mut []) {
        Err(EncodeError::InsufficientSize(size)) => size.required_size,
        Err(EncodeError::AlreadyEncoded) | Ok(_) => 0,
    };
    let room = sending.room(needed);
    let written = encode.encode(room).map_err(|error| Error::General(error.to_string()))?;
    sending.used += written;
    Ok(())
}

fn run<D>(mut traffic: WriteTraffic<'_, D>, sending: &mut Sending, job: &mut Job<'_>) -> Result<(), Error> {
    // A key update that waits leaves first; it is short.
    let written = match *job {
        Job::Nothing => return Ok(()),
        Job::Encrypt(data) => traffic.encrypt(data, sending.room(data.len() + 2 * OVERHEAD)),
        Job::Close => traffic.queue_close_notify(sending.room(2 * OVERHEAD)),
    };
    *job = Job::Nothing;
    sending.used += written.map_err(|error: EncryptError| Error::General(error.to_string()))?;
    Ok(())
}

/// Whether `incoming` starts with a whole record, or with something that is none and never will be.
pub(crate) fn has_record(incoming: &[u8]) -> bool {
    let Some(&[kind, _, _, high, low]) = incoming.get(..HEADER) else { return false };
    let length = usize::from(u16::from_be_bytes([high, low]));
    !matches!(kind, 20..=23) || length > RECORD + OVERHEAD || incoming.len() >= HEADER + length
}

/// How long the record at the start of `incoming` is, as far as is known.
pub(crate) fn wanted(incoming: &[u8]) -> usize {
    match incoming.get(..HEADER) {
        Some(&[_, _, _, high, low]) => HEADER + usize::from(u16::from_be_bytes([high, low])),
        _ => HEADER,
    }
}
