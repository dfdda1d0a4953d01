//! What admission plugins ask of the authorizers, such as whether the user may `bind` a role.
//!
//! Plugins are synchronous, as they run between reading and writing an object; an authorizer that is a webhook is not.
//! A question that no authorizer answers at once ends the attempt to write. It is then answered, and the write is tried
//! again, as after a conflict; this time the answer is there.

use futures_util::FutureExt;
use nave_authz::{Attributes, Chain, Decision};
use nave_machinery::Status;
use nave_machinery::user::UserInfo;
use parking_lot::Mutex;

/// The questions of one request, and their answers.
#[derive(Default)]
pub struct Rights(Mutex<Questions>);

#[derive(Default)]
struct Questions {
    answers: Vec<(Question, bool)>,
    /// The question that ended the last attempt, the authorizers that it is for, and its user.
    pending: Option<(Chain, Question, UserInfo)>,
}

/// A question about a right to a resource, without its user, who is the same for the whole request.
#[derive(Clone, PartialEq, Eq)]
struct Question {
    verb: String,
    group: String,
    version: String,
    resource: String,
    name: String,
    namespace: String,
}

impl Rights {
    /// Whether the authorizers allow this.
    ///
    /// # Errors
    /// 500 where the answer has to be waited for: the attempt to write ends, and [`answer`](Self::answer) waits.
    pub fn may(&self, authorization: &Chain, asked: &Attributes<'_>) -> Result<bool, Status> {
        let mut questions = self.0.lock();
        let question = Question::of(asked);
        if let Some((_, allowed)) = questions.answers.iter().find(|(known, _)| *known == question) {
            return Ok(*allowed);
        }
        // Most authorizers have all they need in memory.
        if let Some(verdict) = authorization.decide(asked).now_or_never() {
            return Ok(verdict.decision == Decision::Allow);
        }
        questions.pending = Some((authorization.clone(), question, asked.user.clone()));
        Err(Status::internal("an authorizer has yet to answer"))
    }

    /// Answers the question that ended the last attempt. Returns whether there is a reason to try again.
    pub async fn answer(&self) -> bool {
        let (authorization, question, user) = {
            let mut questions = self.0.lock();
            match questions.pending.take() {
                Some(pending) if questions.answers.len() < MAX_ANSWERS => pending,
                _ => return false,
            }
        };
        // An authorizer that fails does not allow.
        let allowed = authorization.decide(&question.by(&user)).await.decision == Decision::Allow;
        self.0.lock().answers.push((question, allowed));
        true
    }
}

impl Question {
    fn of(asked: &Attributes<'_>) -> Self {
        Self {
            verb: asked.verb.to_owned(),
            group: asked.group.to_owned(),
            version: asked.version.to_owned(),
            resource: asked.resource.to_owned(),
            name: asked.name.to_owned(),
            namespace: asked.namespace.to_owned(),
        }
    }

    fn by<'a>(&'a self, user: &'a UserInfo) -> Attributes<'a> {
        Attributes {
            verb: &self.verb,
            group: &self.group,
            version: &self.version,
            resource: &self.resource,
            name: &self.name,
            namespace: &self.namespace,
            ..Attributes::of(user)
        }
    }
}

/// The most questions that one request waits for. A write asks two at most; others come from objects that another
/// writer replaces between two attempts.
const MAX_ANSWERS: usize = 16;
