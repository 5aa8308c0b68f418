//! The schema: a shipped base, and the part that is made from the inventory.

use std::{fmt::Write as _, str::FromStr};

use cedar_policy::{EntityId, EntityTypeName, EntityUid, Schema};

use super::LoadError;

/// The version of [`BASE`]. It is part of the policy's hash.
pub const SCHEMA_VERSION: u32 = 7;

/// The shipped base.
pub const BASE: &str = include_str!("schema.cedarschema");

/// The schema for an inventory with these approver groups: each is always there, so that a rule cannot fail on one
/// that nobody has used yet.
pub fn text(approvers: &[String]) -> String {
    let mut text = BASE.to_owned();
    text.push_str("\ntype Approvals = {\n");
    for group in approvers {
        // Groups are names, so they need no escaping inside the quotes.
        let _ = writeln!(text, "  \"{group}\": Long,");
    }
    text.push_str("};\n");
    text
}

pub(super) fn build(approvers: &[String]) -> Result<Schema, LoadError> {
    let (schema, _) = Schema::from_cedarschema_str(&text(approvers))
        .map_err(|error| LoadError::Schema(error.to_string()))?;
    Ok(schema)
}

/// The names of Cedar types, parsed once.
#[derive(Debug)]
pub(super) struct Types {
    pub(super) agent: EntityTypeName,
    pub(super) person: EntityTypeName,
    pub(super) group: EntityTypeName,
    pub(super) env: EntityTypeName,
    pub(super) resource: EntityTypeName,
    pub(super) table: EntityTypeName,
    pub(super) function: EntityTypeName,
    pub(super) object: EntityTypeName,
    pub(super) setting: EntityTypeName,
    pub(super) name: EntityTypeName,
    pub(super) label: EntityTypeName,
    pub(super) program: EntityTypeName,
    pub(super) image: EntityTypeName,
    pub(super) phase: EntityTypeName,
    pub(super) kind: EntityTypeName,
    pub(super) guarantee: EntityTypeName,
    pub(super) mode: EntityTypeName,
}

impl Types {
    pub(super) fn new() -> Result<Self, LoadError> {
        let parse =
            |name: &str| EntityTypeName::from_str(name).map_err(|error| LoadError::Schema(error.to_string()));
        Ok(Self {
            agent: parse("Agent")?,
            person: parse("Person")?,
            group: parse("Group")?,
            env: parse("Env")?,
            resource: parse("Resource")?,
            table: parse("Table")?,
            function: parse("Function")?,
            object: parse("Object")?,
            setting: parse("Setting")?,
            name: parse("Name")?,
            label: parse("Label")?,
            program: parse("Program")?,
            image: parse("Image")?,
            phase: parse("Phase")?,
            kind: parse("Kind")?,
            guarantee: parse("Guarantee")?,
            mode: parse("Mode")?,
        })
    }
}

/// A Cedar entity of that type and name.
pub(super) fn uid(of: &EntityTypeName, name: impl AsRef<str>) -> EntityUid {
    EntityUid::from_type_name_and_id(of.clone(), EntityId::new(name))
}
