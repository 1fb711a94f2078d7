//! QoS specs: how much of their volumes servers may ask for per second, by volume type.
//!
//! The storage engine keeps the limits, whoever the consumer is said to be: the hypervisor hands a server's requests to
//! it untouched. As with Cinder, a volume has the limits that its type had when a server was given it; retyping gives
//! it those of the new type at once. Names that are not in [`MEASURES`] are kept and mean nothing here.

use cairn_gateway::{ApiError, ApiResult};
use cairn_shards::throttle::{IoLimits, Measure, Rate};
use cairn_shards::volumes;
use cairn_state::{Abort, Tx};

use crate::model::{Metadata, QosSpecs, Volume, VolumeType};
use crate::types;

/// What can be limited, as the field calls it. To each, `_max` adds the rate of a burst, `_max_length` its seconds,
/// `_per_gb` makes the rate one per GiB of the volume, and `_per_gb_min` says the least then.
const MEASURES: [(&str, Measure); 6] = [
    ("total_iops_sec", Measure::TotalIops),
    ("read_iops_sec", Measure::ReadIops),
    ("write_iops_sec", Measure::WriteIops),
    ("total_bytes_sec", Measure::TotalBytes),
    ("read_bytes_sec", Measure::ReadBytes),
    ("write_bytes_sec", Measure::WriteBytes),
];

/// What may be said to keep the limits.
pub const CONSUMERS: [&str; 3] = ["front-end", "back-end", "both"];

/// The limits that specs mean for a volume of this size. What cannot be is refused with its name.
pub fn limits(specs: &Metadata, size_gb: u64) -> ApiResult<IoLimits> {
    let number = |key: String| match specs.get(&key) {
        None => Ok(None),
        Some(text) => text.trim().parse::<u64>().map(Some).map_err(|_| {
            ApiError::bad_request(format!(
                "Invalid input for {key}: it must be a whole number, not '{text}'."
            ))
        }),
    };
    let mut limits = IoLimits::new();
    for (name, measure) in MEASURES {
        let per_gb = number(format!("{name}_per_gb"))?.map(|rate| rate.saturating_mul(size_gb));
        let least = number(format!("{name}_per_gb_min"))?.unwrap_or(0);
        let rate = number(name.into())?.or(per_gb.map(|rate| rate.max(least)));
        let (burst_per_s, burst_s) = (number(format!("{name}_max"))?, number(format!("{name}_max_length"))?);
        // 0 is no limit, as for the hypervisors that these names are of.
        if let Some(per_s) = rate.filter(|rate| *rate > 0) {
            let (burst_per_s, burst_s) = (burst_per_s.unwrap_or(0), burst_s.unwrap_or(1));
            limits.insert(measure, Rate { per_s, burst_per_s, burst_s });
        }
    }
    Ok(limits)
}

/// Gives a volume the limits of its type as they are now.
pub fn impose(tx: &mut Tx, volume: &Volume) -> ApiResult<()> {
    let of_type = types::stored(tx, &volume.type_id)?.and_then(|t| t.qos_id);
    let limits = match of_type {
        Some(id) => match tx.get::<QosSpecs>(&id)? {
            Some(qos) => limits(&qos.specs, volume.size_gb)?,
            None => IoLimits::new(),
        },
        None => IoLimits::new(),
    };
    Ok(volumes::limit(tx, &volume.id, &limits)?)
}

/// The specs with this id; 404 otherwise.
pub fn find(tx: &mut Tx, id: &str) -> ApiResult<QosSpecs> {
    tx.get::<QosSpecs>(id)?.ok_or_else(|| ApiError::not_found("QoS specs", id))
}

/// The types that have these specs.
pub fn types_with(tx: &mut Tx, id: &str) -> Result<Vec<VolumeType>, Abort> {
    Ok(types::all(tx)?.into_iter().filter(|t| t.qos_id.as_deref() == Some(id)).collect())
}

/// Ends the specs; with `force`, their types have none then.
pub fn delete(tx: &mut Tx, id: &str, force: bool) -> ApiResult<()> {
    find(tx, id)?;
    let with = types_with(tx, id)?;
    if !with.is_empty() && !force {
        return Err(ApiError::bad_request(format!("QoS Specs {id} is still associated with entities.")));
    }
    part_from_all(tx, id)?;
    tx.delete::<QosSpecs>(id)?;
    Ok(())
}

/// Gives a type these specs.
pub fn associate(tx: &mut Tx, id: &str, mut of: VolumeType) -> ApiResult<()> {
    find(tx, id)?;
    match of.qos_id.as_deref() {
        Some(now) if now == id => return Ok(()),
        Some(now) => {
            return Err(ApiError::bad_request(format!(
                "Type {} is already associated with another qos specs: {now}.",
                of.id
            )));
        }
        None => of.qos_id = Some(id.into()),
    }
    Ok(tx.put(&of)?)
}

/// Takes these specs from a type, if it has them.
pub fn part(tx: &mut Tx, id: &str, mut from: VolumeType) -> ApiResult<()> {
    find(tx, id)?;
    if from.qos_id.as_deref() == Some(id) {
        from.qos_id = None;
        tx.put(&from)?;
    }
    Ok(())
}

/// Takes these specs from every type.
pub fn part_from_all(tx: &mut Tx, id: &str) -> ApiResult<()> {
    find(tx, id)?;
    for with in types_with(tx, id)? {
        part(tx, id, with)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(specs: &[(&str, &str)], size_gb: u64) -> ApiResult<IoLimits> {
        limits(&specs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(), size_gb)
    }

    #[test]
    fn the_fields_names_mean_what_they_mean_to_hypervisors() {
        let found = of(&[("read_iops_sec", "2000"), ("total_bytes_sec", "0"), ("iops_bytes", "500")], 1);
        assert_eq!(
            found.unwrap(),
            IoLimits::from([(Measure::ReadIops, Rate { burst_s: 1, ..Rate::steady(2000) })])
        );
        let burst =
            [("write_iops_sec", "100"), ("write_iops_sec_max", "900"), ("write_iops_sec_max_length", "5")];
        let rate = Rate { per_s: 100, burst_per_s: 900, burst_s: 5 };
        assert_eq!(of(&burst, 1).unwrap(), IoLimits::from([(Measure::WriteIops, rate)]));
        assert!(of(&[("read_iops_sec", "many")], 1).is_err());
    }

    #[test]
    fn a_rate_may_grow_with_the_volume() {
        let specs = [("total_iops_sec_per_gb", "10"), ("total_iops_sec_per_gb_min", "100")];
        let rate = |size_gb| of(&specs, size_gb).unwrap()[&Measure::TotalIops].per_s;
        assert_eq!((rate(1), rate(50)), (100, 500));
    }
}
