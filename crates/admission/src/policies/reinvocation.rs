//! The second run of mutating policies in a request (upstream: `policyReinvokeContext`).

use std::collections::HashSet;

use nave_machinery::Object;

/// An invocation of a policy: the names of policy, binding and parameter, and the namespace of the parameter.
pub(crate) type InvocationKey = [String; 4];

/// The invocations of a request that run again if a later plugin or policy changes the object.
#[derive(Debug, Default)]
pub(crate) struct PolicyReinvocation {
    /// The object after the last run of the policies.
    output: Option<Object>,
    invoked: HashSet<InvocationKey>,
    to_reinvoke: HashSet<InvocationKey>,
}

impl PolicyReinvocation {
    /// Starts the second run. Requires all earlier invocations again if built-in plugins changed the object since.
    pub(super) fn restart(&mut self, object: &Object) {
        if self.output.as_ref() != Some(object) {
            self.require_invoked();
        }
    }

    /// Returns whether the second run includes an invocation.
    pub(super) fn includes(&self, key: &InvocationKey) -> bool {
        self.to_reinvoke.contains(key)
    }

    /// Requires that the invocations so far run again.
    pub(super) fn require_invoked(&mut self) {
        self.to_reinvoke.extend(self.invoked.drain());
    }

    /// Records an invocation whose policy can be invoked again.
    pub(super) fn record(&mut self, key: InvocationKey) {
        self.invoked.insert(key);
    }

    /// Ends a run of the policies.
    pub(super) fn end_run(&mut self, object: &Object) {
        self.output = Some(object.clone());
    }
}
