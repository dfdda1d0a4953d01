//! The messages of konnectivity's `ProxyService` (`konnectivity-client/proto/client/client.proto`).

/// A message in either direction. Its type is that of the payload, which [`Packet::of`] sets.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Packet {
    #[prost(int32, tag = "1")]
    pub(crate) kind: i32,
    #[prost(oneof = "Payload", tags = "2, 3, 4, 5, 6, 7, 8")]
    pub(crate) payload: Option<Payload>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum Payload {
    #[prost(message, tag = "2")]
    DialRequest(DialRequest),
    #[prost(message, tag = "3")]
    DialResponse(DialResponse),
    #[prost(message, tag = "4")]
    Data(Data),
    #[prost(message, tag = "5")]
    CloseRequest(CloseRequest),
    #[prost(message, tag = "6")]
    CloseResponse(CloseResponse),
    #[prost(message, tag = "7")]
    CloseDial(CloseDial),
    #[prost(message, tag = "8")]
    Drain(Drain),
}

/// Asks for a connection.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct DialRequest {
    /// `tcp`.
    #[prost(string, tag = "1")]
    pub(crate) protocol: String,
    /// Host and port.
    #[prost(string, tag = "2")]
    pub(crate) address: String,
    /// Identifies the request.
    #[prost(int64, tag = "3")]
    pub(crate) random: i64,
}

/// The outcome of a request for a connection.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct DialResponse {
    /// Empty if the connection is open.
    #[prost(string, tag = "1")]
    pub(crate) error: String,
    /// Identifies the connection.
    #[prost(int64, tag = "2")]
    pub(crate) connect_id: i64,
    /// That of the request.
    #[prost(int64, tag = "3")]
    pub(crate) random: i64,
}

/// Bytes of a connection.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Data {
    #[prost(int64, tag = "1")]
    pub(crate) connect_id: i64,
    #[prost(string, tag = "2")]
    pub(crate) error: String,
    #[prost(bytes = "bytes", tag = "3")]
    pub(crate) content: bytes::Bytes,
}

/// Ends a connection.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct CloseRequest {
    #[prost(int64, tag = "1")]
    pub(crate) connect_id: i64,
}

/// Says that a connection has ended.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct CloseResponse {
    #[prost(string, tag = "1")]
    pub(crate) error: String,
    #[prost(int64, tag = "2")]
    pub(crate) connect_id: i64,
}

/// Ends a request for a connection.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct CloseDial {
    #[prost(int64, tag = "1")]
    pub(crate) random: i64,
}

/// Says that an agent is about to end, which concerns the proxy only.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Drain {}

impl Packet {
    /// Returns the message of a payload.
    pub(crate) fn of(payload: Payload) -> Self {
        let kind = match &payload {
            Payload::DialRequest(_) => 0,
            Payload::DialResponse(_) => 1,
            Payload::CloseRequest(_) => 2,
            Payload::CloseResponse(_) => 3,
            Payload::Data(_) => 4,
            Payload::CloseDial(_) => 5,
            Payload::Drain(_) => 6,
        };
        Self { kind, payload: Some(payload) }
    }
}
