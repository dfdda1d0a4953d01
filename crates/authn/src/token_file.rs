//! Static tokens from a file (`--token-auth-file`).

use std::{collections::HashMap, fmt, fs::File, io::Read, path::Path};

use async_trait::async_trait;
use nave_machinery::user::UserInfo;
use sha2::{Digest, Sha256};

use crate::bearer::common;
use crate::{AuthnError, Identity, TokenAuthenticator};

/// The maximum size of a token file, in bytes.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// The reasons why a token file cannot be used. Neither `Display` nor `Debug` shows a token.
#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    /// The file cannot be read.
    #[error("{0}")]
    Read(#[from] std::io::Error),
    /// The file is too large.
    #[error("the file is larger than {MAX_FILE_BYTES} bytes")]
    TooLarge,
    /// A line is not comma-separated text in UTF-8.
    #[error("line {line}: not UTF-8")]
    NotText {
        /// The line number, from 1.
        line: u64,
    },
    /// A line lacks columns.
    #[error("line {line}: at least 3 columns (token, user name, user uid) are required, found {found}")]
    Columns {
        /// The line number, from 1.
        line: u64,
        /// The number of columns found.
        found: usize,
    },
}

/// Static tokens, valid until the server stops.
///
/// The keys of the map are hashes of the tokens. So the lookup time reveals nothing about tokens, and the tokens are
/// not kept in memory.
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

    /// Sets the audiences of the tokens: the API server's audiences.
    pub fn for_audiences(mut self, audiences: Vec<String>) -> Self {
        self.audiences = audiences;
        self
    }

    /// Parses the text of a token file. As in upstream, a line without a token is skipped, and a later line with the
    /// same token replaces an earlier one. Both are logged.
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
                tracing::warn!(line, "token file line has no token, skipped");
                continue;
            }
            let groups =
                record.get(3).map(|list| list.split(',').map(str::to_owned).collect()).unwrap_or_default();
            let user = UserInfo { name: name.to_owned(), uid: uid.to_owned(), groups, ..UserInfo::default() };
            if users.insert(digest(token), Identity::new(user)).is_some() {
                tracing::warn!(line, "duplicate token in token file, the later line wins");
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
    async fn parses_a_user_from_each_line() {
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
    fn error_shows_line_number_and_no_token() {
        let short = StaticTokens::parse("t1,alice,1\nsecret,bob\n").unwrap_err();
        assert_eq!(
            short.to_string(),
            "line 2: at least 3 columns (token, user name, user uid) are required, found 2"
        );
        assert!(!format!("{short:?}").contains("secret"));
        let binary = StaticTokens::parse(b"t1,alice,1\nsecret,\xff,2\n").unwrap_err();
        assert_eq!(binary.to_string(), "line 2: not UTF-8");
        assert!(!format!("{:?}", StaticTokens::parse("secret,bob,1").unwrap()).contains("secret"));
    }

    #[test]
    fn missing_file_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let error = StaticTokens::from_file(&folder.path().join("tokens.csv")).unwrap_err();
        assert!(matches!(error, TokenFileError::Read(_)));
    }
}
