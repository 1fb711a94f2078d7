//! What a security group's rule may say. Pure.

use cairn_gateway::{ApiError, ApiResult};
use ipnet::IpNet;

use crate::model::security::protocol_number;
use crate::model::{Direction, Ethertype};

/// ICMP and ICMPv6.
const ICMPS: [u8; 2] = [1, 58];
/// TCP, UDP, SCTP, DCCP, UDP-Lite: those with ports.
const WITH_PORTS: [u8; 5] = [6, 17, 132, 33, 136];

/// Reads a direction.
pub fn direction(text: &str) -> ApiResult<Direction> {
    match text.to_ascii_lowercase().as_str() {
        "ingress" => Ok(Direction::Ingress),
        "egress" => Ok(Direction::Egress),
        _ => Err(ApiError::bad_request(format!(
            "Invalid input for direction. Reason: '{text}' is not in ['ingress', 'egress']."
        ))),
    }
}

/// Reads an ethertype.
pub fn ethertype(text: &str) -> ApiResult<Ethertype> {
    match text.to_ascii_lowercase().as_str() {
        "ipv4" => Ok(Ethertype::V4),
        "ipv6" => Ok(Ethertype::V6),
        _ => Err(ApiError::bad_request(format!(
            "Invalid input for ethertype. Reason: '{text}' is not in ['IPv4', 'IPv6']."
        ))),
    }
}

/// How an ethertype is shown.
pub fn ethertype_text(ethertype: Ethertype) -> &'static str {
    match ethertype {
        Ethertype::V4 => "IPv4",
        Ethertype::V6 => "IPv6",
    }
}

/// Reads a protocol: a name or number, or `any` (also as null or empty), which is none.
pub fn protocol(text: &str, ethertype: Ethertype) -> ApiResult<Option<String>> {
    let text = text.to_ascii_lowercase();
    if text.is_empty() || text == "any" {
        return Ok(None);
    }
    if protocol_number(&text, ethertype).is_none() {
        return Err(ApiError::bad_request(format!(
            "Security group rule protocol {text} not supported. Only protocol names and numbers from 0 to 255 are."
        ))
        .with_code("SecurityGroupRuleInvalidProtocol"));
    }
    let only_v6 = text.starts_with("ipv6-") || text == "icmpv6";
    if only_v6 && ethertype == Ethertype::V4 {
        return Err(ApiError::bad_request(format!("Invalid ethertype IPv4 for protocol {text}."))
            .with_code("SecurityGroupEthertypeConflictWithProtocol"));
    }
    Ok(Some(text))
}

/// Refuses a prefix of the other address family.
pub fn check_prefix(prefix: IpNet, ethertype: Ethertype) -> ApiResult<()> {
    if prefix.addr().is_ipv4() == (ethertype == Ethertype::V4) {
        return Ok(());
    }
    let name = ethertype_text(ethertype);
    Err(ApiError::bad_request(format!("Conflicting value ethertype {name} for CIDR {prefix}"))
        .with_code("SecurityGroupRuleParameterConflict"))
}

/// Checks the range: ports, or ICMP type and code.
pub fn range(
    protocol: Option<u8>,
    min: Option<i64>,
    max: Option<i64>,
) -> ApiResult<(Option<u16>, Option<u16>)> {
    if min.is_none() && max.is_none() {
        return Ok((None, None));
    }
    match protocol {
        None => Err(ApiError::bad_request("Must also specify protocol if port range is given.")
            .with_code("SecurityGroupProtocolRequiredWithPorts")),
        Some(p) if ICMPS.contains(&p) => icmp_range(min, max),
        Some(p) if WITH_PORTS.contains(&p) => port_range(min, max),
        Some(_) => Err(ApiError::bad_request("Invalid port range: the protocol has no ports.")
            .with_code("SecurityGroupInvalidProtocolForPort")),
    }
}

fn icmp_range(min: Option<i64>, max: Option<i64>) -> ApiResult<(Option<u16>, Option<u16>)> {
    let check = |value: Option<i64>, field: &str, name: &str| match value {
        None => Ok(None),
        Some(n) => u8::try_from(n).map(|n| Some(u16::from(n))).map_err(|_| {
            ApiError::bad_request(format!(
                "Invalid value for ICMP {name} ({field}) {n}. It must be 0 to 255."
            ))
            .with_code("SecurityGroupInvalidIcmpValue")
        }),
    };
    let kind = check(min, "port-range-min", "type")?;
    let code = check(max, "port-range-max", "code")?;
    if kind.is_none() {
        let message = format!(
            "ICMP code (port-range-max) {} is provided but ICMP type (port-range-min) is missing.",
            code.unwrap_or_default()
        );
        return Err(ApiError::bad_request(message).with_code("SecurityGroupMissingIcmpType"));
    }
    Ok((kind, code))
}

fn port_range(min: Option<i64>, max: Option<i64>) -> ApiResult<(Option<u16>, Option<u16>)> {
    let check = |value: Option<i64>| match value {
        None => Ok(None),
        Some(n) => u16::try_from(n).map(Some).map_err(|_| {
            ApiError::bad_request(format!("Invalid value for port {n}"))
                .with_code("SecurityGroupInvalidPortValue")
        }),
    };
    match (check(min)?, check(max)?) {
        (Some(min), Some(max)) if min <= max => Ok((Some(min), Some(max))),
        _ => Err(ApiError::bad_request("For TCP/UDP protocols, port_range_min must be <= port_range_max")
            .with_code("SecurityGroupInvalidPortRange")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_ranges() {
        assert_eq!(range(Some(6), Some(80), Some(80)).unwrap(), (Some(80), Some(80)));
        for (min, max, text) in [
            (Some(-16), Some(80), "Invalid value for port -16"),
            (Some(80), Some(79), "port_range_min must be <= port_range_max"),
            (Some(80), Some(65536), "Invalid value for port 65536"),
            (None, Some(6), "port_range_min must be <= port_range_max"),
        ] {
            let error = range(Some(6), min, max).unwrap_err();
            assert!(error.message.contains(text), "{}", error.message);
        }
        assert!(range(None, Some(1), Some(2)).is_err());
        assert!(range(Some(47), Some(1), Some(2)).is_err());
    }

    #[test]
    fn icmp_ranges() {
        assert_eq!(range(Some(1), Some(3), Some(0)).unwrap(), (Some(3), Some(0)));
        assert_eq!(range(Some(58), Some(11), None).unwrap(), (Some(11), None));
        for (min, max, text) in [
            (Some(1), Some(256), "Invalid value for ICMP code"),
            (Some(-1), Some(25), "Invalid value"),
            (None, Some(6), "ICMP type (port-range-min) is missing"),
            (Some(300), Some(1), "Invalid value for ICMP type"),
        ] {
            let error = range(Some(1), min, max).unwrap_err();
            assert!(error.message.contains(text), "{}", error.message);
        }
    }

    #[test]
    fn protocols() {
        assert_eq!(protocol("TCP", Ethertype::V4).unwrap().as_deref(), Some("tcp"));
        assert_eq!(protocol("any", Ethertype::V4).unwrap(), None);
        assert_eq!(protocol("17", Ethertype::V6).unwrap().as_deref(), Some("17"));
        for bad in ["bad_protocol_name", "256", "-1"] {
            assert!(protocol(bad, Ethertype::V4).is_err(), "{bad}");
        }
        assert!(protocol("ipv6-icmp", Ethertype::V4).is_err());
    }
}
