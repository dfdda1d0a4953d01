//! Static tokens from a file (`--token-auth-file`).

use std::{collections::HashMap, fmt, fs::File, io::Read, path::Path};

use async_trait::async_trait;
use nave_machinery::user::UserInfo;
use sha2::{Digest, Sha256};

use crate::bearer::common;
use crate::{AuthnError, Identity, TokenAuthenticator};

/// A token file larger than this is refused, in bytes.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// Why a token file cannot be used. No form of it shows a token.
#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    /// The file cannot be read.
    #[error("{0}")]
    Read(#[from] std::io::Error),
    /// The file is too large to be a token file.
    #[error("the file is larger than {MAX_FILE_BYTES} bytes")]
    TooLarge,
    /// A line is not comma-separated text in UTF-8.
    #[error("line {line}: not UTF-8")]
    NotText {
        /// The line, from 1.
        line: u64,
    },
    /// A line lacks columns.
    #[error("line {line}: at least 3 columns (token, user name, user uid) are needed, found {found}")]
    Columns {
        /// The line, from 1.
        line: u64,
        /// How many columns it has.
        found: usize,
    },
}

/// Tokens that hold as long as the server runs.
///
/// The map's keys are hashes of the tokens, so that the time of a look-up tells nothing about the tokens in it, and
/// so that the tokens themselves are not kept in memory.
pub struct StaticTokens {
    users: HashMap<[u8; 32], Identity>,
    audiences: Vec<String>,
}

impl StaticTokens {
    /// Reads a file with lines `token,user,uid[,"group1,group2"]`.
    pub fn from_file(path: &Path) -> Result<Self, TokenFileError> {
        let mut text = Vec::new();
        File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut text)?;
        if text.len() as u64 > MAX_FILE_BYTES {
            return Err(TokenFileError::TooLarge);
        }
        Self::parse(&text)
    }

    /// The same tokens, meant for these audiences: this API's.
    pub fn for_audiences(mut self, audiences: Vec<String>) -> Self {
        self.audiences = audiences;
        self
    }

    /// Reads the text of such a file. As upstream, a line without a token is left out, and the last of several lines
    /// with the same token holds; both are logged.
    pub fn parse(text: impl AsRef<[u8]>) -> Result<Self, TokenFileError> {
        let mut users = HashMap::new();
        let mut reader =
            csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text.as_ref());
        let mut record = csv::StringRecord::new();
        loop {
            let line = reader.position().line();
            if !reader.read_record(&mut record).map_err(|error| unreadable(error, line))? {
                return Ok(Self { users, audiences: Vec::new() });
            }
            let line = record.position().map_or(line, csv::Position::line);
            let (Some(token), Some(name), Some(uid)) = (record.get(0), record.get(1), record.get(2)) else {
                return Err(TokenFileError::Columns { line, found: record.len() });
            };
            if token.is_empty() {
                tracing::warn!(line, "token file: the line has no token and is left out");
                continue;
            }
            let groups =
                record.get(3).map(|list| list.split(',').map(str::to_owned).collect()).unwrap_or_default();
            let user = UserInfo { name: name.to_owned(), uid: uid.to_owned(), groups, ..UserInfo::default() };
            if users.insert(digest(token), Identity::new(user)).is_some() {
                tracing::warn!(line, "token file: the line's token was given before; this line holds");
            }
        }
    }
}

#[async_trait]
impl TokenAuthenticator for StaticTokens {
    async fn authenticate_token(
        &self,
        token: &str,
        audiences: &[String],
    ) -> Result<Option<Identity>, AuthnError> {
        let meant = common(&self.audiences, audiences);
        if meant.is_empty() {
            return Ok(None);
        }
        Ok(self.users.get(&digest(token)).map(|found| found.clone().for_audiences(meant)))
    }
}

impl fmt::Debug for StaticTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StaticTokens").field("tokens", &self.users.len()).finish_non_exhaustive()
    }
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// A reader over bytes in memory fails for text that is not UTF-8 only.
fn unreadable(error: csv::Error, line: u64) -> TokenFileError {
    let line = error.position().map_or(line, csv::Position::line);
    match error.into_kind() {
        csv::ErrorKind::Io(error) => TokenFileError::Read(error),
        _ => TokenFileError::NotText { line },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_line_gives_a_user() {
        let text = "t1,alice,1001,\"dev,ops\"\n\nt2,bob,1002\n,nobody,0\nt3,carol,3,admins\nt2,bobby,1003\n";
        let audiences = ["api".to_owned()];
        let tokens = StaticTokens::parse(text).unwrap().for_audiences(audiences.to_vec());
        let alice = tokens.authenticate_token("t1", &audiences).await.unwrap().unwrap().user;
        assert_eq!((alice.name.as_str(), alice.uid.as_str()), ("alice", "1001"));
        assert_eq!(alice.groups, ["dev", "ops", "system:authenticated"]);
        assert_eq!(tokens.authenticate_token("t2", &audiences).await.unwrap().unwrap().user.name, "bobby");
        assert_eq!(
            tokens.authenticate_token("t3", &audiences).await.unwrap().unwrap().user.groups[0],
            "admins"
        );
        for unknown in ["", "t", "t11", "T1"] {
            assert_eq!(tokens.authenticate_token(unknown, &audiences).await, Ok(None), "{unknown:?}");
        }
    }

    #[test]
    fn an_error_names_the_line_and_no_token() {
        let short = StaticTokens::parse("t1,alice,1\nsecret,bob\n").unwrap_err();
        assert_eq!(
            short.to_string(),
            "line 2: at least 3 columns (token, user name, user uid) are needed, found 2"
        );
        assert!(!format!("{short:?}").contains("secret"));
        let binary = StaticTokens::parse(b"t1,alice,1\nsecret,\xff,2\n").unwrap_err();
        assert_eq!(binary.to_string(), "line 2: not UTF-8");
        assert!(!format!("{:?}", StaticTokens::parse("secret,bob,1").unwrap()).contains("secret"));
    }

    #[test]
    fn a_file_that_is_not_there_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let error = StaticTokens::from_file(&folder.path().join("tokens.csv")).unwrap_err();
        assert!(matches!(error, TokenFileError::Read(_)));
    }
}
