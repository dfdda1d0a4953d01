//! Compression of large responses for clients that accept it (upstream: `deferredResponseWriter`).

use std::io::Write as _;

use bytes::{Buf, Bytes};
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use http::{HeaderMap, header};

use crate::body::{BodyError, Pieces, ResponseBody};

/// Minimum size for compression, as upstream.
pub(crate) const THRESHOLD: usize = 128 << 10;

/// Number of bytes compressed per step: about a millisecond of work.
const STEP: usize = 64 << 10;

/// Returns whether the client accepts gzip. As upstream, an encoding with a weight is ignored.
pub(crate) fn is_accepted(headers: &HeaderMap) -> bool {
    let accepted = headers.get(header::ACCEPT_ENCODING).and_then(|value| value.to_str().ok());
    accepted.is_some_and(|encodings| encodings.split(',').any(|encoding| encoding.trim() == "gzip"))
}

/// Compresses a streamed body (a large list) or a large complete body while the client reads it. Returns any other body
/// unchanged as `Err`.
pub(crate) fn compressed(body: ResponseBody) -> Result<ResponseBody, ResponseBody> {
    match body {
        ResponseBody::Full(bytes) if bytes.len() > THRESHOLD => {
            Ok(ResponseBody::try_stream(gzip(stream::iter([Ok(Pieces::from(bytes))]))))
        }
        as_it_is @ (ResponseBody::Full(_) | ResponseBody::Upgrade(_)) => Err(as_it_is),
        ResponseBody::Stream(chunks) => Ok(ResponseBody::try_stream(gzip(chunks))),
    }
}

/// Compresses a stream in steps and lets other tasks run between them. Writing to memory cannot fail.
fn gzip(
    chunks: impl Stream<Item = Result<Pieces, BodyError>> + Send + 'static,
) -> impl Stream<Item = Result<Bytes, BodyError>> + Send + 'static {
    let encoder = GzEncoder::new(Vec::new(), Compression::fast());
    let start = (Box::pin(chunks), Pieces::default(), Some(encoder));
    let steps = stream::unfold(start, |(mut chunks, mut pieces, encoder)| async move {
        let mut encoder = encoder?;
        if !pieces.has_remaining() {
            pieces = match chunks.next().await {
                None => return Some((Ok(encoder.finish().unwrap_or_default()), (chunks, pieces, None))),
                Some(Err(error)) => return Some((Err(error), (chunks, pieces, None))),
                Some(Ok(next)) => next,
            };
        }
        let mut left = STEP;
        while left > 0 && pieces.has_remaining() {
            let length = pieces.chunk().len().min(left);
            let written = encoder.write_all(&pieces.chunk()[..length]);
            debug_assert!(written.is_ok(), "writing to memory");
            pieces.advance(length);
            left -= length;
        }
        let out = std::mem::take(encoder.get_mut());
        tokio::task::yield_now().await;
        Some((Ok(out), (chunks, pieces, Some(encoder))))
    });
    steps.map_ok(Bytes::from).try_filter(|out| std::future::ready(!out.is_empty()))
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use flate2::read::GzDecoder;
    use http::HeaderValue;
    use http_body_util::BodyExt;

    use super::*;

    async fn decompressed(body: ResponseBody) -> Vec<u8> {
        let mut bytes = body.collect().await.unwrap().aggregate();
        let bytes = bytes.copy_to_bytes(bytes.remaining());
        let mut out = Vec::new();
        GzDecoder::new(&bytes[..]).read_to_end(&mut out).unwrap();
        out
    }

    #[tokio::test]
    async fn large_and_streamed_bodies_are_compressed_and_small_ones_are_not() {
        let large: Vec<u8> = (0..=THRESHOLD).map(|n| (n / 1_000) as u8).collect();
        let small = compressed(large[..THRESHOLD].to_vec().into());
        assert!(matches!(small, Err(ResponseBody::Full(bytes)) if bytes.len() == THRESHOLD));
        let huge: Vec<u8> = large.iter().copied().cycle().take(5 * STEP + 17).collect();
        let Ok(body) = compressed(huge.clone().into()) else { panic!("is large") };
        assert_eq!(decompressed(body).await, huge);
        let Ok(body) = compressed(large.clone().into()) else { panic!("is large") };
        assert_eq!(decompressed(body).await, large);
        let chunks: Vec<_> = large.chunks(10_000).map(Bytes::copy_from_slice).collect();
        let Ok(body) = compressed(ResponseBody::stream(stream::iter(chunks))) else { panic!("is a stream") };
        assert_eq!(decompressed(body).await, large);
    }

    #[test]
    fn accept_encoding_is_parsed_as_upstream_does() {
        let accepts = |value: &'static str| {
            is_accepted(&HeaderMap::from_iter([(header::ACCEPT_ENCODING, HeaderValue::from_static(value))]))
        };
        assert_eq!(["gzip", "br, gzip ,zstd"].map(accepts), [true; 2]);
        assert_eq!(["", "br", "gzip;q=1", "xgzip"].map(accepts), [false; 4]);
        assert!(!is_accepted(&HeaderMap::new()));
    }
}
