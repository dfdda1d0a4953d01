//! The reasons why a value cannot be transformed.

/// The reason why a value cannot be encrypted or decrypted. The texts are upstream's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransformError {
    /// No provider of the resource has the value's prefix.
    #[error("no matching prefix found")]
    NoProvider,
    /// The provider does not have the value's key.
    #[error("no matching key was found for the provided {0} transformer")]
    NoKey(&'static str),
    /// The value is encrypted, but the resource has no provider that encrypts.
    #[error("identity transformer tried to read encrypted data")]
    Encrypted,
    /// The value is truncated.
    #[error("the stored data was shorter than the required size")]
    TooShort,
    /// The length of the value is not that of AES-CBC.
    #[error("the stored data is not a multiple of the block size")]
    BlockSize,
    /// The value was encrypted with another key, or changed.
    #[error("invalid padding on input")]
    Padding,
    /// The value was encrypted with another key or for another object, or changed.
    #[error("cipher: message authentication failed")]
    Authentication,
    /// The system has no random numbers.
    #[error("unable to read sufficient random bytes")]
    Random,
    /// The plugin cannot be used.
    #[error("{text}")]
    Kms {
        /// The status of the call, for metrics.
        code: &'static str,
        /// The error.
        text: String,
    },
    /// Several providers have failed.
    #[error("[{}]", list(.0))]
    Several(Vec<TransformError>),
}

impl TransformError {
    /// Combines the errors of the providers that were tried; `none` is the error if no provider was tried.
    pub(crate) fn of(mut errors: Vec<Self>, none: Self) -> Self {
        errors.dedup();
        match errors.pop() {
            None => none,
            Some(error) if errors.is_empty() => error,
            Some(error) => {
                errors.push(error);
                Self::Several(errors)
            }
        }
    }

    /// Returns an error of a plugin that is not the status of a call.
    pub(crate) fn kms(text: impl Into<String>) -> Self {
        Self::Kms { code: NO_STATUS, text: text.into() }
    }

    /// Returns the label `status` of metrics.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Kms { code, .. } => code,
            _ => NO_STATUS,
        }
    }
}

fn list(errors: &[TransformError]) -> String {
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    texts.join(", ")
}

/// The label of an error without a gRPC status.
const NO_STATUS: &str = "unknown-non-grpc";
