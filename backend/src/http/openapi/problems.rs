//! Refusals in the document: one response for each status, with the codes that it may carry.

use std::collections::BTreeMap;

use doorbuster_domain::refusal::{PROBLEM_JSON, Problem, Refusal};
use serde_json::json;
use utoipa::openapi::header::{Header, HeaderBuilder};
use utoipa::openapi::response::{Response, ResponseBuilder};
use utoipa::openapi::schema::{
    AllOfBuilder, ArrayBuilder, KnownFormat, ObjectBuilder, Ref, Schema, SchemaFormat, Type,
};
use utoipa::openapi::{ContentBuilder, RefOr};

/// Declares the refusals of a route, as a type for its `responses(...)`.
macro_rules! refusals {
    ($($name:ident = [$($refusal:ident),* $(,)?];)*) => {$(
        pub(super) struct $name;

        impl utoipa::IntoResponses for $name {
            fn responses() -> std::collections::BTreeMap<
                String,
                utoipa::openapi::RefOr<utoipa::openapi::response::Response>,
            > {
                crate::http::openapi::problems::responses(&[$(doorbuster_domain::refusal::Refusal::$refusal),*])
            }
        }
    )*};
}
pub(in crate::http) use refusals;

/// The responses that tell of these refusals.
pub(in crate::http) fn responses(refusals: &[Refusal]) -> BTreeMap<String, RefOr<Response>> {
    let mut by_status: BTreeMap<u16, Vec<Refusal>> = BTreeMap::new();
    for refusal in refusals {
        by_status.entry(refusal.status()).or_default().push(*refusal);
    }
    by_status.into_iter().map(|(status, refusals)| (status.to_string(), response(&refusals).into())).collect()
}

fn response(refusals: &[Refusal]) -> Response {
    let describe = |refusal: &Refusal| format!("`{}`: {}", refusal.code(), refusal.title());
    let description = refusals.iter().map(describe).collect::<Vec<_>>().join("\n\n");
    let codes = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(refusals.iter().map(|one| one.code())));
    let schema = AllOfBuilder::new()
        .item(Ref::from_schema_name("Problem"))
        .item(ObjectBuilder::new().property("code", codes).required("code"));
    let content = ContentBuilder::new().schema(Some(Schema::from(schema.build()))).build();
    let mut response = ResponseBuilder::new()
        .description(description)
        .content(PROBLEM_JSON, content)
        .header("cache-control", text_header("`no-store`, or how long everybody may be told the same."));
    if refusals.iter().any(|refusal| may_say_when(*refusal)) {
        response = response.header("retry-after", retry_after());
    }
    if refusals.contains(&Refusal::Unauthorized) {
        response = response.header("www-authenticate", text_header("The scheme of the token that is wanted."));
    }
    response.build()
}

/// Whether a refusal may say when to ask again.
const fn may_say_when(refusal: Refusal) -> bool {
    matches!(
        refusal,
        Refusal::Paused
            | Refusal::NotStarted
            | Refusal::OutsideHours
            | Refusal::SoldOut
            | Refusal::Busy
            | Refusal::Unavailable
            | Refusal::TooMany
    )
}

/// A header with a text.
pub(in crate::http) fn text_header(description: &str) -> Header {
    let schema = Schema::from(ObjectBuilder::new().schema_type(Type::String).build());
    HeaderBuilder::new().schema(Some(schema)).description(Some(description)).build()
}

fn retry_after() -> Header {
    let seconds = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1)).maximum(Some(3600));
    let description = "Seconds after which to ask again; left out where asking again is of no use.";
    HeaderBuilder::new().schema(Some(Schema::from(seconds.build()))).description(Some(description)).build()
}

/// What every refusal looks like.
pub(in crate::http) fn schema() -> RefOr<Schema> {
    let text = |description: &str| ObjectBuilder::new().schema_type(Type::String).description(Some(description));
    let instant = |description: &str| text(description).format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)));
    let integer = |description: &str| ObjectBuilder::new().schema_type(Type::Integer).description(Some(description));
    let errors = ArrayBuilder::new()
        .items(Ref::from_schema_name("FieldError"))
        .description(Some("Everything that is wrong with the request, field by field."));
    let example = serde_json::to_value(Problem::new(Refusal::UnknownCoupon)).unwrap_or_else(|_| json!({}));
    ObjectBuilder::new()
        .description(Some("A refusal (RFC 9457)."))
        .property("type", text("`urn:doorbuster:problem:` and the code."))
        .property("title", text("For people."))
        .property("status", integer("The reply's status."))
        .property("code", text("For programs."))
        .property("campaign", text("The campaign asked for."))
        .property(
            "round",
            text("The round meant: the current, else the next, else the last.")
                .format(Some(SchemaFormat::KnownFormat(KnownFormat::Date))),
        )
        .property("opens_at", instant("When that round opens, where it is still to open."))
        .property("next_opens_at", instant("When the next round opens."))
        .property("closed_at", instant("When the last round closed."))
        .property("retry_after_ms", integer("As the header `retry-after`, in milliseconds."))
        .property("coupon", Ref::from_schema_name("Coupon"))
        .property("errors", errors)
        .required("type")
        .required("title")
        .required("status")
        .required("code")
        .examples([example])
        .into()
}

#[cfg(test)]
mod tests {
    use doorbuster_domain::id::CampaignId;
    use doorbuster_domain::schedule::FieldError;

    use super::*;

    #[test]
    fn every_member_of_a_problem_is_described() {
        let now = chrono::DateTime::UNIX_EPOCH.fixed_offset();
        let whole = Problem {
            campaign: CampaignId::parse("spring").ok(),
            round: "2026-05-01".parse().ok(),
            opens_at: Some(now),
            next_opens_at: Some(now),
            closed_at: Some(now),
            retry_after_s: Some(1),
            coupon: Some(json!({})),
            errors: vec![FieldError::new("a", "b")],
            ..Problem::new(Refusal::Paused)
        };
        let said = serde_json::to_value(whole).unwrap();
        let described = serde_json::to_value(schema()).unwrap();
        let mut said: Vec<_> = said.as_object().unwrap().keys().collect();
        let mut described: Vec<_> = described["properties"].as_object().unwrap().keys().collect();
        said.sort();
        described.sort();
        assert_eq!(said, described);
    }
}
