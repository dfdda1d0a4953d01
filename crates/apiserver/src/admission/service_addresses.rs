//! Addresses and ports of services (upstream: `registry/core/service/storage`'s allocators).

use nave_machinery::{Status, Value, meta};
use nave_resources::ResourceDef;

use super::{Attributes, Operation, Plugin, is};
use crate::allocators::ServiceAllocator;

/// Services get cluster IPs and node ports.
pub struct ServiceAddresses {
    /// Who hands them out.
    pub allocator: ServiceAllocator,
}

impl Plugin for ServiceAddresses {
    fn admit(&self, attributes: &Attributes<'_>, object: Option<&mut Value>) -> Result<(), Status> {
        match (attributes.operation, object) {
            (Operation::Create, Some(service)) if is(attributes.def, "services") => {
                self.allocator.assign(service, None)
            }
            (Operation::Update(old), Some(service)) if is(attributes.def, "services") => {
                self.allocator.assign(service, Some(old))
            }
            _ => Ok(()),
        }
    }

    fn settled(&self, def: &ResourceDef, uid: &str, stored: Option<&Value>) {
        if is(def, "services") {
            self.allocator.settle(uid, stored.filter(|service| !meta::uid(service).is_empty()));
        }
    }
}
