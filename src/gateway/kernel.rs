//! What a gateway tells about its kernels.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// The longest id that is taken; Jupyter's own are UUIDs.
const ID_LIMIT: usize = 128;

/// A kernel as the gateway describes it. Whatever is missing, or not of its kind, is empty; only the id has to be there.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct KernelInfo {
    /// The id, fit to stand in a URL.
    #[serde(deserialize_with = "id")]
    pub id: String,
    /// The name of its kernelspec, such as `python3`.
    #[serde(default, deserialize_with = "lenient")]
    pub name: String,
    /// `starting`, `idle`, `busy`, `restarting`, `dead`, or what else the gateway says.
    #[serde(default, deserialize_with = "lenient")]
    pub execution_state: String,
    /// How many websockets are open to it.
    #[serde(default, deserialize_with = "lenient")]
    pub connections: u64,
    /// When it last did something, as an ISO 8601 time.
    #[serde(default, deserialize_with = "lenient")]
    pub last_activity: String,
    /// How often its process was replaced, which only gateways of ours say.
    #[serde(default, deserialize_with = "lenient", rename = "sandkernel_restarts")]
    pub restarts: Option<u64>,
}

/// The kinds of kernel that a gateway can start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelSpecs {
    /// The kind that is started when none is asked for; may be empty.
    pub default: String,
    /// All of them, sorted.
    pub names: Vec<String>,
}

/// The answer to `GET api/kernelspecs`.
#[derive(Deserialize)]
pub(super) struct KernelSpecsAnswer {
    #[serde(default, deserialize_with = "lenient")]
    default: String,
    kernelspecs: BTreeMap<String, Value>,
}

impl From<KernelSpecsAnswer> for KernelSpecs {
    fn from(answer: KernelSpecsAnswer) -> Self {
        Self { default: answer.default, names: answer.kernelspecs.into_keys().collect() }
    }
}

/// Whether a kernel's id is one that can stand in a URL as one segment and means nothing else there.
pub(super) fn is_valid_id(id: &str) -> bool {
    !matches!(id, "" | "." | "..")
        && id.len() <= ID_LIMIT
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte))
}

fn id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let id = String::deserialize(deserializer)?;
    if is_valid_id(&id) { Ok(id) } else { Err(serde::de::Error::custom("not the id of a kernel")) }
}

fn lenient<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: serde::de::DeserializeOwned + Default,
{
    let value = Value::deserialize(deserializer)?;
    Ok(serde_json::from_value(value).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_what_is_there() {
        let kernel: KernelInfo = serde_json::from_str(
            r#"{"id": "a-b", "name": null, "connections": "3", "execution_state": "idle"}"#,
        )
        .unwrap();
        assert_eq!((kernel.id.as_str(), kernel.name.as_str()), ("a-b", ""));
        assert_eq!((kernel.connections, kernel.execution_state.as_str()), (0, "idle"));
    }

    #[test]
    fn refuses_an_id_that_means_something_else_in_a_url() {
        for id in ["", ".", "..", "a/b", "a?b", "a b", "é", &"x".repeat(129)] {
            let text = serde_json::json!({ "id": id }).to_string();
            assert!(serde_json::from_str::<KernelInfo>(&text).is_err(), "{id}");
        }
        assert!(serde_json::from_str::<KernelInfo>(r#"{"name": "python3"}"#).is_err());
    }
}
