//! What the OpenAPI document says of a campaign that an operator writes.

use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{AdditionalProperties, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::Spec;

/// [`Spec`] as it is read: nothing but its fields.
#[derive(Debug)]
pub struct CampaignInput;

impl PartialSchema for CampaignInput {
    fn schema() -> RefOr<Schema> {
        let mut schema = Spec::schema();
        if let RefOr::T(Schema::Object(object)) = &mut schema {
            object.additional_properties = Some(Box::new(AdditionalProperties::FreeForm(false)));
        }
        schema
    }
}

impl ToSchema for CampaignInput {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        Spec::schemas(schemas);
    }
}
