//! `ConversionReview` of `apiextensions.k8s.io`, in the versions `v1` and `v1beta1`.

use bytes::Bytes;
use nave_codec::json::{self, JsonError};
use nave_machinery::limits::{Budget, MAX_BODY_BYTES, MAX_DEPTH};
use nave_machinery::{GroupVersion, GroupVersionKind, Value, meta};
use serde::Deserialize;
use uuid::Uuid;

use super::{Batch, Failure, FailureClass, checks, raw, text};

const GROUP: &str = "apiextensions.k8s.io";
const KIND: &str = "ConversionReview";
/// Maximum length of the webhook's text in an error, in bytes.
const MAX_MESSAGE: usize = 4096;

/// Maximum memory of the objects in one response, as estimated by [`Budget`].
const MAX_TREES_BYTES: usize = 256 << 20;

/// A version of the review.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReviewVersion {
    V1,
    V1Beta1,
}

impl ReviewVersion {
    pub(super) fn parse(name: &str) -> Option<Self> {
        match name {
            "v1" => Some(Self::V1),
            "v1beta1" => Some(Self::V1Beta1),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V1Beta1 => "v1beta1",
        }
    }
}

/// A review that is sent to the webhook.
pub(super) struct Review {
    version: ReviewVersion,
    uid: String,
    to: GroupVersion,
    originals: Vec<Value>,
    request: Bytes,
}

/// The part of a `Status` that is read.
#[derive(Default, Deserialize)]
struct Outcome {
    status: Option<String>,
    message: Option<String>,
}

/// The parts of a response that are read. The objects are decoded one by one.
#[derive(Default)]
struct Answer<'r> {
    api_version: String,
    kind: String,
    response: Option<&'r [u8]>,
}

impl<'r> Answer<'r> {
    fn parse(document: &'r [u8]) -> Result<Self, String> {
        let mut answer = Self::default();
        for (name, value) in raw::fields(document)? {
            match &*name {
                "apiVersion" => answer.api_version = string(value)?,
                "kind" => answer.kind = string(value)?,
                "response" => answer.response = Some(value).filter(|value| *value != b"null"),
                _ => {}
            }
        }
        Ok(answer)
    }
}

/// The content of `response`.
#[derive(Default)]
struct Response<'r> {
    uid: String,
    result: Outcome,
    objects: Vec<&'r [u8]>,
}

impl<'r> Response<'r> {
    fn parse(document: &'r [u8]) -> Result<Self, String> {
        let mut response = Self::default();
        for (name, value) in raw::fields(document)? {
            match &*name {
                "uid" => response.uid = string(value)?,
                "result" => {
                    let result: Option<Outcome> =
                        serde_json::from_slice(value).map_err(|error| error.to_string())?;
                    response.result = result.unwrap_or_default();
                }
                "convertedObjects" => response.objects = raw::elements(value)?,
                _ => {}
            }
        }
        Ok(response)
    }
}

/// Parses a string; `null` is empty.
fn string(bytes: &[u8]) -> Result<String, String> {
    let text: Option<String> = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    Ok(text.unwrap_or_default())
}

impl Review {
    pub(super) fn new(version: ReviewVersion, batch: Batch, to: &GroupVersion) -> Self {
        let uid = Uuid::new_v4().to_string();
        let Batch { objects, json } = batch;
        let mut request = format!(
            "{{\"kind\":\"{KIND}\",\"apiVersion\":\"{GROUP}/{}\",\"request\":{{\"uid\":\"{uid}\",\"desiredAPIVersion\":",
            version.name()
        )
        .into_bytes();
        json::encode_into(&to.to_string(), &mut request);
        request.extend_from_slice(b",\"objects\":[");
        request.extend_from_slice(&json);
        request.extend_from_slice(b"]}}");
        Self { version, uid, to: to.clone(), originals: objects, request: request.into() }
    }

    /// Returns the JSON of the review.
    pub(super) fn request(&self) -> &Bytes {
        &self.request
    }

    /// Checks a response and returns the converted objects. `kind` is the kind of the originals, for errors.
    pub(super) fn accept(self, kind: &GroupVersionKind, response: &[u8]) -> Result<Vec<Value>, Failure> {
        let objects = self.converted(kind, response)?;
        let (expected, returned) = (self.originals.len(), objects.len());
        if returned != expected {
            let why = format!("returned {returned} objects, expected {expected}");
            return Err(Failure::new(FailureClass::PartialResponse, kind, why));
        }
        let is_single = expected == 1;
        let invalid = |index: usize, what: &str, why: &str| {
            let why = match (is_single, what) {
                (true, "group") => format!("returned invalid object at index 0: {why}"),
                (true, "metadata") => format!("returned invalid metadata: {why}"),
                (true, _) => format!("returned invalid object: {why}"),
                (false, "metadata") => format!("returned invalid metadata in object at index {index}: {why}"),
                (false, _) => format!("returned invalid converted object at index {index}: {why}"),
            };
            Failure::new(FailureClass::InvalidObject, kind, why)
        };
        let pairs = self.originals.into_iter().zip(objects).enumerate();
        // Many small values need more memory than their text.
        let mut memory = Budget::new(MAX_TREES_BYTES);
        let accept = |(index, (original, converted)): (usize, (Value, &[u8]))| {
            let converted = decode(converted, &mut memory).map_err(|why| invalid(index, "object", &why))?;
            checks::group_and_kind(&original, &converted, &self.to)
                .map_err(|why| invalid(index, "group", &why))?;
            checks::identity(&original, &converted).map_err(|why| invalid(index, "object", &why))?;
            checks::with_metadata_of(original, converted).map_err(|why| invalid(index, "metadata", &why))
        };
        pairs.map(accept).collect()
    }

    /// Returns the objects in a response that reports success.
    fn converted<'r>(&self, kind: &GroupVersionKind, response: &'r [u8]) -> Result<Vec<&'r [u8]>, Failure> {
        let failed = |class, why: &str| Failure::new(class, kind, format_args!("failed: {why}"));
        let undecodable = |why: String| {
            failed(FailureClass::Call, &format!("couldn't get version/kind; json parse error: {why}"))
        };
        let answer = Answer::parse(response).map_err(undecodable)?;
        self.check_type(&answer).map_err(|(class, why)| failed(class, &why))?;
        let malformed = |why: &str| failed(FailureClass::MalformedResponse, why);
        let response = answer.response.ok_or_else(|| malformed("no response provided"))?;
        let Response { uid, result, objects } =
            Response::parse(response).map_err(|why| failed(FailureClass::Call, &why))?;
        if self.version == ReviewVersion::V1 && uid != self.uid {
            return Err(malformed(&format!("expected response.uid={:?}, got {:?}", self.uid, clip(&uid))));
        }
        let (status, message) = (result.status.unwrap_or_default(), result.message.unwrap_or_default());
        if status != "Success" {
            let stated = format!("response.result.status was '{}', not 'Success'", clip(&status));
            return Err(malformed(if message.is_empty() { &stated } else { clip(&message) }));
        }
        Ok(objects)
    }

    /// Checks the version and kind of a response, as upstream's decoder does.
    fn check_type(&self, answer: &Answer<'_>) -> Result<(), (FailureClass, String)> {
        let Answer { api_version, kind, .. } = answer;
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let expected = self.version.name();
        match (group, version, &**kind) {
            (GROUP, version, KIND) if version == expected => Ok(()),
            (GROUP, "v1" | "v1beta1", KIND) => {
                let why = format!("converting ({version}.{KIND}) to ({expected}.{KIND}): unknown conversion");
                Err((FailureClass::Call, why))
            }
            // As upstream, only v1 requires both.
            (_, "", _) | (_, _, "") if self.version == ReviewVersion::V1Beta1 => Ok(()),
            (_, "", _) | (_, _, "") => {
                let answered = text(&GroupVersionKind::new(clip(group), clip(version), clip(kind)));
                let why = format!("expected webhook response of {GROUP}/v1, Kind={KIND}, got {answered}");
                Err((FailureClass::MalformedResponse, why))
            }
            _ => {
                let (kind, version) = (clip(kind), clip(api_version));
                let why = format!("no kind {kind:?} is registered for version {version:?}");
                Err((FailureClass::Call, why))
            }
        }
    }
}

/// Decodes a converted object within the limits of every object.
fn decode(text: &[u8], memory: &mut Budget) -> Result<Value, String> {
    if text.len() > MAX_BODY_BYTES {
        return Err(format!("the object is longer than {MAX_BODY_BYTES} bytes"));
    }
    let value = json::decode(text).map_err(|error| match error {
        JsonError::Limit(limit) => limit.to_string(),
        other => other.to_string(),
    })?;
    let value = value.value;
    memory.charge_tree(&value, MAX_DEPTH).map_err(|limit| limit.to_string())?;
    if !value.is_object() {
        return Err("the converted object is not a JSON object".to_owned());
    }
    if meta::kind(&value).is_empty() {
        return Err("Object 'Kind' is missing".to_owned());
    }
    Ok(value)
}

fn clip(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_MESSAGE)]
}
