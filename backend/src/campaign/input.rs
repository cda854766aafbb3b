//! Reading a campaign as an operator writes it.

use doorbuster_domain::discount::LARGEST_AMOUNT;
use doorbuster_domain::schedule::{FieldError, Schedule, ScheduleSpec};
use doorbuster_domain::validity::{Redeemable, ValidFrom, Validity};
use serde_json::Value;

use super::{Discount, LARGEST_QUOTA, Spec};
use crate::fields::{Fields, integer, must_be_text};

pub(super) fn read(value: &Value) -> Result<(Spec, Schedule), Vec<FieldError>> {
    let mut errors = Vec::new();
    let Some(fields) = Fields::of(value, "", &Spec::FIELDS, &mut errors) else { return Err(errors) };

    let title = fields.text("title", &mut errors);
    let vendor = fields.text("vendor", &mut errors);
    let currency = fields.read("currency", &mut errors, |value| {
        value
            .as_str()
            .filter(|text| text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_uppercase()))
            .map(str::to_owned)
            .ok_or_else(|| "must be three capital letters, such as \"KRW\"".to_owned())
    });
    let quota = fields.read("quota", &mut errors, |value| match value {
        Value::Null => Ok(None),
        value => integer(value, 0, LARGEST_QUOTA).map(Some).map_err(|rule| format!("{rule}, or null for no limit")),
    });
    let min_order_amount = fields.read("min_order_amount", &mut errors, |value| integer(value, 0, LARGEST_AMOUNT));
    let schedule = fields.required("schedule", &mut errors).and_then(|value| read_schedule(value, &mut errors));
    let discount = fields.required("discount", &mut errors).and_then(|value| read_discount(value, &mut errors));
    let validity = fields.required("validity", &mut errors).and_then(|value| read_validity(value, &mut errors));

    match (title, vendor, currency, schedule, quota, discount, min_order_amount, validity) {
        (
            Some(title),
            Some(vendor),
            Some(currency),
            Some((schedule, compiled)),
            Some(quota),
            Some(discount),
            Some(min_order_amount),
            Some(validity),
        ) if errors.is_empty() => {
            let spec = Spec { title, vendor, currency, schedule, quota, discount, min_order_amount, validity };
            Ok((spec, compiled))
        }
        _ => Err(errors),
    }
}

fn read_schedule(value: &Value, errors: &mut Vec<FieldError>) -> Option<(ScheduleSpec, Schedule)> {
    let known = ["timezone", "first_day", "last_day", "opens", "closes", "weekdays"];
    let fields = Fields::of(value, "schedule", &known, errors)?;
    let mut missing = false;
    let mut text = |name: &str, errors: &mut Vec<FieldError>| {
        let text = fields.read(name, errors, |value| value.as_str().map(str::to_owned).ok_or_else(must_be_text));
        missing |= text.is_none();
        text
    };
    // A field that is missing stands as one that holds, so that the others are checked all the same.
    let spec = ScheduleSpec {
        timezone: text("timezone", errors).unwrap_or_else(|| "UTC".to_owned()),
        first_day: text("first_day", errors).unwrap_or_else(|| "1970-01-01".to_owned()),
        last_day: text("last_day", errors).unwrap_or_else(|| "2999-12-31".to_owned()),
        opens: text("opens", errors).unwrap_or_else(|| "00:00".to_owned()),
        closes: text("closes", errors).unwrap_or_else(|| "24:00".to_owned()),
        weekdays: None,
    };
    let weekdays = match fields.get("weekdays") {
        None => Some(None),
        Some(value) => {
            let names = value
                .as_array()
                .and_then(|days| days.iter().map(|day| day.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>());
            match names {
                Some(names) => Some(Some(names)),
                None => {
                    errors.push(fields.error("weekdays", "must be a list of mon, tue, wed, thu, fri, sat, sun"));
                    None
                }
            }
        }
    };
    let complete = !missing && weekdays.is_some();
    let spec = ScheduleSpec { weekdays: weekdays.flatten(), ..spec };
    match Schedule::compile(&spec) {
        Ok(schedule) => complete.then_some((spec, schedule)),
        Err(wrong) => {
            errors.extend(wrong.into_iter().map(|error| error.within("schedule")));
            None
        }
    }
}

fn read_discount(value: &Value, errors: &mut Vec<FieldError>) -> Option<Discount> {
    let kind = value.get("kind").and_then(Value::as_str);
    let known: &[&str] = if kind == Some("amount") { &["kind", "value"] } else { &["kind", "value", "max_amount"] };
    let fields = Fields::of(value, "discount", known, errors)?;
    let largest = if kind == Some("percent") { 100 } else { LARGEST_AMOUNT };
    let value = fields.read("value", errors, |value| integer(value, 1, largest));
    let max_amount = match fields.get("max_amount") {
        None => Some(None),
        Some(_) if kind == Some("amount") => None,
        Some(_) => fields.read("max_amount", errors, |value| integer(value, 1, LARGEST_AMOUNT)).map(Some),
    };
    match kind {
        Some("percent") => Some(Discount::Percent { value: value?, max_amount: max_amount? }),
        Some("amount") => Some(Discount::Amount { value: value? }),
        _ => {
            errors.push(fields.error("kind", "must be \"percent\" or \"amount\""));
            None
        }
    }
}

fn read_validity(value: &Value, errors: &mut Vec<FieldError>) -> Option<Validity> {
    let fields = Fields::of(value, "validity", &["days", "from", "redeemable"], errors)?;
    let days = fields.read("days", errors, |value| {
        integer(value, 1, 3_650).and_then(|days| u32::try_from(days).map_err(|error| error.to_string()))
    });
    let from = fields.read("from", errors, |value| match value.as_str() {
        Some("issue") => Ok(ValidFrom::Issue),
        Some("event_end") => Ok(ValidFrom::EventEnd),
        _ => Err("must be \"issue\" or \"event_end\"".to_owned()),
    });
    let redeemable = fields.read("redeemable", errors, |value| match value.as_str() {
        Some("on_issue") => Ok(Redeemable::OnIssue),
        Some("after_event") => Ok(Redeemable::AfterEvent),
        _ => Err("must be \"on_issue\" or \"after_event\"".to_owned()),
    });
    Some(Validity { days: days?, from: from?, redeemable: redeemable? })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn spring() -> Value {
        json!({"title": "Spring 50%", "vendor": "acme", "currency": "KRW",
            "schedule": {"timezone": "Asia/Seoul", "first_day": "2026-05-01", "last_day": "2026-05-05",
                         "opens": "13:00", "closes": "15:00", "weekdays": ["mon", "tue"]},
            "quota": 100, "discount": {"kind": "percent", "value": 50, "max_amount": 10000}, "min_order_amount": 20000,
            "validity": {"days": 30, "from": "event_end", "redeemable": "on_issue"}})
    }

    fn fields_wrong(value: &Value) -> Vec<String> {
        match read(value) {
            Ok(_) => Vec::new(),
            Err(errors) => errors.into_iter().map(|error| error.field).collect(),
        }
    }

    #[test]
    fn what_was_read_is_written_alike() {
        let (spec, _) = read(&spring()).unwrap();
        assert_eq!(serde_json::to_value(spec).unwrap(), spring());
    }

    #[test]
    fn each_field_is_checked() {
        for (pointer, bad) in [
            ("/title", json!("")),
            ("/title", json!("a\0b")),
            ("/title", json!(7)),
            ("/vendor", json!("x".repeat(201))),
            ("/currency", json!("krw")),
            ("/currency", json!("KRWX")),
            ("/quota", json!(-1)),
            ("/quota", json!(1.5)),
            ("/quota", json!(10_000_001)),
            ("/quota", json!("100")),
            ("/quota", json!(1e300)),
            ("/min_order_amount", json!(-1)),
            ("/min_order_amount", json!(u64::MAX)),
            ("/schedule/timezone", json!("Mars/Olympus")),
            ("/schedule/first_day", json!("2026-5-1")),
            ("/schedule/last_day", json!("2026-04-30")),
            ("/schedule/opens", json!("24:00")),
            ("/schedule/closes", json!("25:00")),
            ("/schedule/weekdays", json!(["monday"])),
            ("/schedule/weekdays", json!([])),
            ("/schedule/weekdays", json!(null)),
            ("/discount/kind", json!("gift")),
            ("/discount/value", json!(0)),
            ("/discount/value", json!(101)),
            ("/discount/max_amount", json!(0)),
            ("/validity/days", json!(0)),
            ("/validity/days", json!(3_651)),
            ("/validity/from", json!("now")),
            ("/validity/redeemable", json!("never")),
        ] {
            let mut value = spring();
            *value.pointer_mut(pointer).unwrap() = bad.clone();
            assert_eq!(fields_wrong(&value), [pointer[1..].replace('/', ".")], "{pointer} = {bad}");
        }
    }

    #[test]
    fn each_field_is_needed_but_two() {
        for pointer in [
            "/title",
            "/vendor",
            "/currency",
            "/quota",
            "/min_order_amount",
            "/schedule",
            "/discount",
            "/validity",
            "/schedule/timezone",
            "/schedule/first_day",
            "/schedule/last_day",
            "/schedule/opens",
            "/schedule/closes",
            "/discount/kind",
            "/discount/value",
            "/validity/days",
            "/validity/from",
            "/validity/redeemable",
        ] {
            let (parent, name) = pointer.rsplit_once('/').unwrap();
            let mut value = spring();
            value.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(name);
            assert_eq!(fields_wrong(&value), [pointer[1..].replace('/', ".")], "{pointer}");
        }
        let mut value = spring();
        value["schedule"].as_object_mut().unwrap().remove("weekdays");
        value["discount"].as_object_mut().unwrap().remove("max_amount");
        value["quota"] = Value::Null;
        assert_eq!(fields_wrong(&value), [""; 0]);
    }

    #[test]
    fn everything_wrong_is_said_at_once() {
        let value = json!({"title": 1, "colour": "red", "currency": "k", "schedule": {"opens": "x", "first_day": 1},
            "quota": -1, "discount": {"kind": "amount", "value": 0, "max_amount": 1}, "validity": []});
        let mut wrong = fields_wrong(&value);
        wrong.sort();
        assert_eq!(
            wrong,
            [
                "colour",
                "currency",
                "discount.max_amount",
                "discount.value",
                "min_order_amount",
                "quota",
                "schedule.closes",
                "schedule.first_day",
                "schedule.last_day",
                "schedule.opens",
                "schedule.timezone",
                "title",
                "validity",
                "vendor"
            ]
        );
        assert_eq!(fields_wrong(&json!([])), [""]);
    }
}
