//! Cluster IPs and node ports of services (upstream: `pkg/registry/core/service/{ipallocator,portallocator}`).
//!
//! Every address and port has one owner, the service's uid. A write reserves what it needs before it is stored;
//! [`ServiceAllocator::settle`] then makes the books agree with what was stored, so that a failed write, an update
//! that gives a port back and a deletion are all the same case.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;
use std::str::FromStr;

use nave_machinery::{FieldError, FieldPath, GroupKind, Map, Status, Value, meta};
use parking_lot::Mutex;
use rand::Rng;

/// The addresses services get, as `--service-cluster-ip-range` gives them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceRange {
    base: u32,
    size: u32,
}

/// Hands out cluster IPs and node ports.
pub struct ServiceAllocator {
    range: ServiceRange,
    ports: RangeInclusive<u16>,
    books: Mutex<Books>,
}

#[derive(Default)]
struct Books {
    addresses: HashMap<Ipv4Addr, String>,
    ports: HashMap<u16, String>,
}

/// A mistake in a range's text.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not an IPv4 range such as 10.0.0.0/16, of 8 to 1,048,576 addresses")]
pub struct RangeError(String);

impl FromStr for ServiceRange {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, RangeError> {
        let wrong = || RangeError(text.to_owned());
        let (address, bits) = text.split_once('/').ok_or_else(wrong)?;
        let address: Ipv4Addr = address.parse().map_err(|_| wrong())?;
        let bits: u32 = bits.parse().map_err(|_| wrong())?;
        if !(12..=29).contains(&bits) {
            return Err(wrong());
        }
        let size = 1u32 << (32 - bits);
        Ok(Self { base: u32::from(address) & !(size - 1), size })
    }
}

impl fmt::Display for ServiceRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.base), 32 - self.size.trailing_zeros())
    }
}

impl ServiceRange {
    /// The address of the `kubernetes` service.
    pub fn first(self) -> Ipv4Addr {
        Ipv4Addr::from(self.base + 1)
    }

    fn contains(self, address: Ipv4Addr) -> bool {
        let offset = u32::from(address).wrapping_sub(self.base);
        offset > 0 && offset < self.size - 1
    }

    /// Where addresses given out at random begin: those below stay for services that ask for theirs (KEP-3070).
    fn dynamic_offset(self) -> u32 {
        (self.size / 16).clamp(16.min(self.size / 2), 256)
    }
}

impl ServiceAllocator {
    /// An allocator of which nothing is given out yet.
    pub fn new(range: ServiceRange, ports: RangeInclusive<u16>) -> Self {
        Self { range, ports, books: Mutex::default() }
    }

    /// Gives a service the addresses and ports its type calls for, and reserves those it names itself.
    ///
    /// # Errors
    /// 422 where an address or a port is taken or out of range, 500 where none is left.
    pub fn assign(&self, service: &mut Value, old: Option<&Value>) -> Result<(), Status> {
        let owner = meta::uid(service).to_owned();
        let name = meta::name(service).to_owned();
        let kind = meta::str_at(service, &["spec", "type"]).unwrap_or("ClusterIP").to_owned();
        let invalid = |error: FieldError| {
            Status::invalid(&GroupKind { group: String::new(), kind: "Service".to_owned() }, &name, &[error])
        };
        let Some(spec) = service.get_mut("spec").and_then(Value::as_object_mut) else { return Ok(()) };
        let mut books = self.books.lock();
        if kind == "ExternalName" {
            return Ok(());
        }
        self.assign_address(&mut books, spec, &owner).map_err(invalid)?;
        if kind == "NodePort" || kind == "LoadBalancer" {
            let old_ports = old.and_then(|old| meta::at(old, &["spec", "ports"])).and_then(Value::as_array);
            self.assign_ports(&mut books, spec, old_ports.map(Vec::as_slice), &owner).map_err(invalid)?;
        }
        Ok(())
    }

    /// Makes the books hold for `uid` what `stored` has, or nothing where the service is not there.
    pub fn settle(&self, uid: &str, stored: Option<&Value>) {
        let addresses: Vec<Ipv4Addr> = stored.map(addresses_of).unwrap_or_default();
        let ports: Vec<u16> = stored.map(ports_of).unwrap_or_default();
        let mut books = self.books.lock();
        settle(&mut books.addresses, uid, addresses);
        settle(&mut books.ports, uid, ports);
    }

    fn assign_address(&self, books: &mut Books, spec: &mut Map, owner: &str) -> Result<(), FieldError> {
        let at = FieldPath::new("spec").child("clusterIPs").index(0);
        let given = spec.get("clusterIP").and_then(Value::as_str).unwrap_or_default().to_owned();
        let address = match given.parse() {
            _ if given == "None" => "None".to_owned(),
            // Not an address: validation says so.
            Err(_) if !given.is_empty() => return Ok(()),
            Ok(IpAddr::V4(wanted)) => {
                let taken = books.addresses.get(&wanted).is_some_and(|other| other != owner);
                if taken {
                    let why = "failed to allocate IP: provided IP is already allocated";
                    return Err(FieldError::invalid(&at, given, why));
                }
                if !self.range.contains(wanted) {
                    let at = FieldPath::new("spec").child("clusterIPs");
                    let why = format!(
                        "failed to allocate IP {wanted}: the provided network does not match the current range"
                    );
                    return Err(FieldError::invalid(&at, Value::Array(vec![Value::String(given)]), why));
                }
                books.addresses.insert(wanted, owner.to_owned());
                given
            }
            _ => {
                let free = self.free_address(books);
                let free =
                    free.ok_or_else(|| FieldError::invalid(&at, "", "failed to allocate IP: range is full"))?;
                books.addresses.insert(free, owner.to_owned());
                free.to_string()
            }
        };
        spec.insert("clusterIP".to_owned(), Value::String(address.clone()));
        spec.insert("clusterIPs".to_owned(), Value::Array(vec![Value::String(address)]));
        let families = || Value::Array(vec![Value::String("IPv4".to_owned())]);
        spec.entry("ipFamilies").or_insert_with(families);
        spec.entry("ipFamilyPolicy").or_insert_with(|| Value::String("SingleStack".to_owned()));
        Ok(())
    }

    fn free_address(&self, books: &Books) -> Option<Ipv4Addr> {
        let first = self.range.dynamic_offset();
        let (low, high) = (1..first, first..self.range.size - 1);
        let start = rand::rng().random_range(high.clone());
        let tries = (start..high.end).chain(high.start..start).chain(low);
        tries
            .map(|offset| Ipv4Addr::from(self.range.base + offset))
            .find(|at| !books.addresses.contains_key(at))
    }

    fn assign_ports(
        &self,
        books: &mut Books,
        spec: &mut Map,
        old: Option<&[Value]>,
        owner: &str,
    ) -> Result<(), FieldError> {
        let Some(ports) = spec.get_mut("ports").and_then(Value::as_array_mut) else { return Ok(()) };
        for (index, port) in ports.iter_mut().enumerate() {
            let at = FieldPath::new("spec").child("ports").index(index).child("nodePort");
            let kept =
                old.and_then(|old| old.iter().find(|other| same_port(port, other))).and_then(node_port);
            let wanted = node_port(port).or(kept);
            let number = match wanted {
                Some(number) => self.reserve_port(books, number, owner, &at)?,
                None => self.free_port(books).ok_or_else(|| {
                    FieldError::invalid(&at, 0, "failed to allocate a nodePort: range is full")
                })?,
            };
            books.ports.insert(number, owner.to_owned());
            if let Some(port) = port.as_object_mut() {
                port.insert("nodePort".to_owned(), Value::from(number));
            }
        }
        Ok(())
    }

    fn reserve_port(
        &self,
        books: &Books,
        number: u16,
        owner: &str,
        at: &FieldPath,
    ) -> Result<u16, FieldError> {
        if !self.ports.contains(&number) {
            let (first, last) = (self.ports.start(), self.ports.end());
            let why = format!(
                "provided port is not in the valid range. The range of valid ports is {first}-{last}"
            );
            return Err(FieldError::invalid(at, number, why));
        }
        if books.ports.get(&number).is_some_and(|other| other != owner) {
            return Err(FieldError::invalid(at, number, "provided port is already allocated"));
        }
        Ok(number)
    }

    fn free_port(&self, books: &Books) -> Option<u16> {
        let start = rand::rng().random_range(self.ports.clone());
        (start..=*self.ports.end())
            .chain(*self.ports.start()..start)
            .find(|port| !books.ports.contains_key(port))
    }
}

/// A port keeps its node port through an update that names it again by port and protocol.
fn same_port(one: &Value, other: &Value) -> bool {
    one.get("port") == other.get("port") && one.get("protocol") == other.get("protocol")
}

fn node_port(port: &Value) -> Option<u16> {
    let number = port.get("nodePort")?.as_u64()?;
    u16::try_from(number).ok().filter(|number| *number != 0)
}

fn addresses_of(service: &Value) -> Vec<Ipv4Addr> {
    let addresses = meta::at(service, &["spec", "clusterIPs"]).and_then(Value::as_array);
    addresses.into_iter().flatten().filter_map(|address| address.as_str()?.parse().ok()).collect()
}

fn ports_of(service: &Value) -> Vec<u16> {
    let ports = meta::at(service, &["spec", "ports"]).and_then(Value::as_array);
    ports.into_iter().flatten().filter_map(node_port).collect()
}

fn settle<K: Hash + Eq>(book: &mut HashMap<K, String>, uid: &str, held: Vec<K>) {
    book.retain(|key, owner| owner != uid || held.contains(key));
    for key in held {
        book.insert(key, uid.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn allocator() -> ServiceAllocator {
        ServiceAllocator::new("10.0.0.0/24".parse().unwrap(), 30000..=30003)
    }

    fn service(uid: &str, spec: &Value) -> Value {
        json!({"metadata": {"name": "s", "uid": uid}, "spec": spec})
    }

    #[test]
    fn a_service_gets_an_address_of_the_range_and_keeps_it() {
        let allocator = allocator();
        let mut one = service("a", &json!({"ports": [{"port": 80}]}));
        allocator.assign(&mut one, None).unwrap();
        let address: Ipv4Addr = one["spec"]["clusterIP"].as_str().unwrap().parse().unwrap();
        assert!(allocator.range.contains(address));
        let again = one.clone();
        allocator.assign(&mut one, Some(&again)).unwrap();
        assert_eq!(one, again);
        let mut other = service("b", &json!({"clusterIP": address.to_string()}));
        assert_eq!(allocator.assign(&mut other, None).unwrap_err().code, 422);
        allocator.settle("a", None);
        allocator.assign(&mut other, None).unwrap();
    }

    #[test]
    fn every_address_is_given_out_once_and_then_the_range_is_full() {
        let allocator = ServiceAllocator::new("10.0.0.0/28".parse().unwrap(), 30000..=30003);
        for uid in 0..14 {
            allocator.assign(&mut service(&uid.to_string(), &json!({})), None).unwrap();
        }
        assert_eq!(allocator.assign(&mut service("x", &json!({})), None).unwrap_err().code, 422);
    }

    #[test]
    fn node_ports_are_unique_and_come_back() {
        let allocator = allocator();
        let spec = || json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30001}]});
        let mut one = service("a", &spec());
        allocator.assign(&mut one, None).unwrap();
        let refused = allocator.assign(&mut service("b", &spec()), None).unwrap_err();
        assert!(refused.message.contains("provided port is already allocated"), "{refused}");
        let mut changed = service("a", &json!({"type": "NodePort", "ports": [{"port": 80}]}));
        allocator.assign(&mut changed, Some(&one)).unwrap();
        assert_eq!(changed["spec"]["ports"][0]["nodePort"], 30001);
        allocator.settle("a", None);
        allocator.assign(&mut service("b", &spec()), None).unwrap();
    }

    #[test]
    fn a_range_is_an_ipv4_network() {
        assert_eq!("10.0.0.0/16".parse::<ServiceRange>().unwrap().first(), Ipv4Addr::new(10, 0, 0, 1));
        assert_eq!("10.0.3.4/16".parse::<ServiceRange>().unwrap().to_string(), "10.0.0.0/16");
        for text in ["10.0.0.0", "10.0.0.0/33", "10.0.0/8", "::/64", "10.0.0.0/4", "10.0.0.0/30"] {
            text.parse::<ServiceRange>().unwrap_err();
        }
    }
}
