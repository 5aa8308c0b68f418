//! What a run sees of what the engine says: its own containers, in its own network.

use std::collections::BTreeSet;

use hyper::body::Bytes;
use interceptor_core::model::RunId;
use serde_json::{Map, Value, json};

use super::{
    create::LABEL,
    refusal::Refusal,
    upstream::{Answer, full, whole},
};

/// Narrows a list to what bears the run's label.
pub(super) fn only_own(parameters: &mut Vec<(String, String)>, run: RunId) -> Result<(), Refusal> {
    narrowed(parameters, |filters| {
        let labels = filters.entry("label").or_insert_with(|| json!({}));
        let labels = labels.as_object_mut().ok_or_else(unread)?;
        labels.insert(format!("{LABEL}={run}"), json!(true));
        Ok(())
    })
}

/// Narrows events to those of containers.
pub(super) fn only_of_containers(parameters: &mut Vec<(String, String)>) -> Result<(), Refusal> {
    narrowed(parameters, |filters| {
        filters.insert("type".to_owned(), json!({ "container": true }));
        Ok(())
    })
}

fn unread() -> Refusal {
    Refusal::malformed("the parameter `filters` cannot be read")
}

fn narrowed(
    parameters: &mut Vec<(String, String)>,
    narrow: impl FnOnce(&mut Map<String, Value>) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    let (given, others): (Vec<_>, Vec<_>) = parameters.drain(..).partition(|(name, _)| name == "filters");
    let text = match given.as_slice() {
        [] => "{}",
        [(_, text)] if text.is_empty() => "{}",
        [(_, text)] => text,
        _ => return Err(unread()),
    };
    let mut filters: Map<String, Value> = serde_json::from_str(text).map_err(|_| unread())?;
    for values in filters.values_mut() {
        // Of the two ways to write them the engine takes either, and not both in one.
        if let Value::Array(listed) = values {
            let listed = listed.iter().map(|value| Some((value.as_str()?.to_owned(), json!(true))));
            *values = Value::Object(listed.collect::<Option<_>>().ok_or_else(unread)?);
        }
    }
    narrow(&mut filters)?;
    *parameters = others;
    parameters.push(("filters".to_owned(), Value::Object(filters).to_string()));
    Ok(())
}

/// Says in a container's description where the ports are that were to be published: at their own numbers.
pub(super) fn show_ports(told: &mut Value, published: &BTreeSet<String>) {
    let ports: Map<String, Value> = published
        .iter()
        .map(|port| {
            let number = port.split('/').next().unwrap_or_default();
            (port.clone(), json!([{ "HostIp": "127.0.0.1", "HostPort": number }]))
        })
        .collect();
    if let Some(Value::Object(settings)) = told.get_mut("NetworkSettings") {
        settings.insert("Ports".to_owned(), Value::Object(ports));
    }
    if let Some(Value::Object(host)) = told.get_mut("HostConfig") {
        // It is not the host's.
        host.insert("NetworkMode".to_owned(), json!("default"));
    }
}

/// An answer whose body was looked at, and perhaps changed. One that is no JSON stays as it is.
pub(super) async fn changed(answer: Answer, change: impl FnOnce(&mut Value)) -> Result<Answer, Refusal> {
    let (parts, body) = answer.into_parts();
    let body = whole(body).await?;
    let body = match serde_json::from_slice::<Value>(&body) {
        Ok(mut told) => {
            change(&mut told);
            Bytes::from(told.to_string())
        }
        Err(_) => body,
    };
    Ok(Answer::from_parts(parts, full(body)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(filters: Option<&str>) -> Result<Value, Refusal> {
        let mut parameters = vec![("all".to_owned(), "1".to_owned())];
        parameters.extend(filters.map(|text| ("filters".to_owned(), text.to_owned())));
        only_own(&mut parameters, RunId::from_random(7))?;
        assert_eq!(parameters.len(), 2);
        Ok(serde_json::from_str(&parameters[1].1).expect("JSON"))
    }

    #[test]
    fn a_list_is_of_ones_own_whatever_is_asked() {
        let own = format!("{LABEL}={}", RunId::from_random(7));
        assert_eq!(listed(None), Ok(json!({ "label": { &own: true } })));
        let both = Ok(json!({ "label": { "a": true, &own: true }, "name": { "b": true } }));
        assert_eq!(listed(Some(r#"{"label":["a"],"name":["b"]}"#)), both);
        assert_eq!(listed(Some(r#"{"label":{"a":true},"name":{"b":true}}"#)), both);
        for wrong in ["[]", "x", r#"{"label":"a"}"#] {
            assert!(listed(Some(wrong)).is_err(), "{wrong}");
        }
        let twice = |name: &str| ("filters".to_owned(), name.to_owned());
        assert!(only_own(&mut vec![twice("{}"), twice("{}")], RunId::from_random(7)).is_err());
    }
}
