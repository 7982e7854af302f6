//! CRI v1, package `runtime.v1`: messages, client and server, generated from cri/api.proto.

mod list;

pub use list::ListContainersResponse;

/// The generated package.
pub mod v1 {
    #![allow(clippy::all, clippy::too_many_lines, missing_docs)]
    tonic::include_proto!("runtime.v1");
    pub use super::ListContainersResponse;
}

/// Shows who logs in where, never with what (the contract marks the other fields debug_redact).
impl std::fmt::Debug for v1::AuthConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuthConfig")
            .field("username", &self.username)
            .field("server_address", &self.server_address)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prost::Message;
    use prost_types::field_descriptor_proto::{Label, Type};
    use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet};

    fn short(name: &str) -> String {
        name.trim_start_matches(".runtime.v1.").to_string()
    }

    fn scalar(field: &FieldDescriptorProto) -> String {
        match field.r#type() {
            Type::String => "string".into(),
            Type::Bytes => "bytes".into(),
            Type::Bool => "bool".into(),
            Type::Int32 => "int32".into(),
            Type::Int64 => "int64".into(),
            Type::Uint32 => "uint32".into(),
            Type::Uint64 => "uint64".into(),
            Type::Double => "double".into(),
            Type::Message | Type::Enum => short(field.type_name()),
            other => format!("{other:?}"),
        }
    }

    fn type_of(message: &DescriptorProto, field: &FieldDescriptorProto) -> String {
        let entry = message.nested_type.iter().find(|nested| {
            nested.options.as_ref().is_some_and(|o| o.map_entry())
                && field.type_name().ends_with(nested.name())
        });
        if let Some(entry) = entry {
            return format!("map<{}, {}>", scalar(&entry.field[0]), scalar(&entry.field[1]));
        }
        let base = scalar(field);
        let deprecated = field.options.as_ref().is_some_and(|o| o.deprecated());
        let base = if deprecated { format!("{base} deprecated") } else { base };
        if field.label() == Label::Repeated { format!("repeated {base}") } else { base }
    }

    fn rows(file: &FileDescriptorProto) -> BTreeSet<String> {
        let mut rows = BTreeSet::new();
        for service in &file.service {
            for rpc in &service.method {
                let stream = if rpc.server_streaming() { "stream " } else { "" };
                rows.insert(format!(
                    "rpc\t{}\t{}\t{}\t{stream}{}",
                    service.name(),
                    rpc.name(),
                    short(rpc.input_type()),
                    short(rpc.output_type())
                ));
            }
        }
        let nested = file
            .message_type
            .iter()
            .flat_map(|m| m.enum_type.iter().map(move |e| (format!("{}.{}", m.name(), e.name()), e)));
        for (name, e) in file.enum_type.iter().map(|e| (e.name().to_string(), e)).chain(nested) {
            for value in &e.value {
                rows.insert(format!("enum\t{name}\t{}\t{}", value.name(), value.number()));
            }
        }
        for message in &file.message_type {
            if message.field.is_empty() {
                rows.insert(format!("field\t{}\t-\t-\t-", message.name()));
            }
            for field in &message.field {
                let kind = type_of(message, field);
                rows.insert(format!(
                    "field\t{}\t{}\t{}\t{kind}",
                    message.name(),
                    field.name(),
                    field.number()
                ));
            }
        }
        rows
    }

    #[test]
    fn the_proto_equals_the_contract_table() {
        let set =
            FileDescriptorSet::decode(&include_bytes!(concat!(env!("OUT_DIR"), "/cri.fds"))[..]).unwrap();
        let ours = rows(&set.file[0]);
        let contract: BTreeSet<String> = include_str!("../cri/contract.tsv")
            .lines()
            .filter(|line| !line.starts_with('#') && !line.is_empty())
            .map(|line| line.trim_end().to_string())
            .collect();
        let missing: Vec<_> = contract.difference(&ours).collect();
        let extra: Vec<_> = ours.difference(&contract).collect();
        assert!(missing.is_empty() && extra.is_empty(), "missing: {missing:#?}\nextra: {extra:#?}");
        assert_eq!(contract.iter().filter(|row| row.starts_with("rpc\t")).count(), 43);
    }

    #[test]
    fn debug_of_auth_shows_no_secret() {
        let auth = super::v1::AuthConfig {
            username: "ann".into(),
            password: "s3cret".into(),
            auth: "s3cret".into(),
            identity_token: "s3cret".into(),
            registry_token: "s3cret".into(),
            server_address: "https://r.example".into(),
        };
        let request = super::v1::PullImageRequest { auth: Some(auth), ..Default::default() };
        let text = format!("{request:?}");
        assert!(text.contains("ann") && !text.contains("s3cret"), "{text}");
    }
}
