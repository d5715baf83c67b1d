//! Tools: functions of the program that a model may call.

use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{ToolCall, ToolSpec};

/// How long a tool may take, unless it is said otherwise.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of a result, unless it is said otherwise: some 4,000 tokens.
const MAX_RESULT: usize = 16 * 1024;

/// Functions that a model may call, each with a name, a description and typed arguments.
///
/// ```
/// use mk_voice::llm::ToolCall;
/// use mk_voice::llm::tools::Tools;
/// use schemars::JsonSchema;
/// use serde::Deserialize;
///
/// #[derive(Deserialize, JsonSchema)]
/// struct Place {
///     /// The town, in English.
///     city: String,
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let tools = Tools::new().with("get_weather", "Tells the weather", |place: Place| async move {
///     match place.city.as_str() {
///         "Rome" => Ok("sunny"),
///         other => Err(format!("no such place: {other}")),
///     }
/// });
/// assert_eq!(tools.specs()[0].parameters["properties"]["city"]["type"], "string");
///
/// let call = |city: &str| ToolCall {
///     id: "call_1".into(),
///     name: "get_weather".into(),
///     arguments: format!("{{\"city\":\"{city}\"}}"),
/// };
/// assert_eq!(tools.call(&call("Rome")).await, r#""sunny""#);
/// assert_eq!(tools.call(&call("Atlantis")).await, r#"{"error":"no such place: Atlantis"}"#);
/// # }
/// ```
#[derive(Clone)]
pub struct Tools {
    tools: Vec<Tool>,
    timeout: Duration,
    max_result: usize,
}

#[derive(Clone)]
struct Tool {
    spec: ToolSpec,
    timeout: Duration,
    run: Run,
}

/// Takes the arguments as the model wrote them, and gives the result as JSON.
type Run = Arc<dyn Fn(&str) -> Result<Running, String> + Send + Sync>;
type Running = Pin<Box<dyn Future<Output = Result<String, String>> + Send>>;

impl Default for Tools {
    fn default() -> Self {
        Self { tools: Vec::new(), timeout: TIMEOUT, max_result: MAX_RESULT }
    }
}

impl Tools {
    /// No tools.
    pub fn new() -> Self {
        Self::default()
    }

    /// How long each of the tools that are added from here on may take; 30 s where nothing is said.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Bytes of the longest result; of a longer one the model gets the beginning, and is told so. 16 KiB where nothing
    /// is said.
    pub fn max_result(mut self, bytes: usize) -> Self {
        self.max_result = bytes;
        self
    }

    /// Adds a tool, in the place of one with the same name. A name is letters, digits, `_` and `-`; the description is
    /// for the model, and so are the doc comments of the arguments' fields. Arguments of type `()` are none.
    ///
    /// An error is told to the model, which may then try something else. What blocks the thread belongs into
    /// [`tokio::task::spawn_blocking`].
    pub fn with<A, R, E, F>(
        mut self,
        name: impl Into<String>,
        description: impl Into<String>,
        tool: impl Fn(A) -> F + Send + Sync + 'static,
    ) -> Self
    where
        A: DeserializeOwned + JsonSchema + Send + 'static,
        R: Serialize,
        E: fmt::Display,
        F: Future<Output = Result<R, E>> + Send + 'static,
    {
        let (name, description) = (name.into(), description.into());
        let tool = Arc::new(tool);
        let run = Arc::new(move |arguments: &str| {
            let arguments: A = parse(arguments)?;
            let tool = Arc::clone(&tool);
            // Called within the future, so that a panic of either is caught.
            let running = async move {
                let result = tool(arguments).await.map_err(|error| error.to_string())?;
                serde_json::to_string(&result)
                    .map_err(|error| format!("the result cannot be written as JSON: {error}"))
            };
            Ok(Box::pin(running) as Running)
        });
        let spec = ToolSpec { name, description, parameters: schema::<A>() };
        self.tools.retain(|tool| tool.spec.name != spec.name);
        self.tools.push(Tool { spec, timeout: self.timeout, run });
        self
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.tools.is_empty()
    }

    /// What a model is told of them.
    pub fn specs(&self) -> Arc<[ToolSpec]> {
        self.tools.iter().map(|tool| tool.spec.clone()).collect()
    }

    /// Runs a tool, and gives what the model is to be told: the result as JSON, or `{"error": …}` where the tool does
    /// not exist, does not take these arguments, fails, panics or takes too long.
    ///
    /// The tool begins when the future is first polled, within a tokio runtime. From there on it goes on to its end even
    /// if the future is dropped, so that nobody interrupts it half-way.
    pub fn call(&self, call: &ToolCall) -> impl Future<Output = String> + Send + use<> {
        let (name, max_result) = (call.name.clone(), self.max_result);
        let begun = self.begin(call);
        async move {
            let result = match begun {
                Ok((running, timeout)) => run(&name, running, timeout).await,
                Err(error) => Err(error),
            };
            match result {
                Ok(json) => fitting(json, max_result),
                Err(error) => {
                    tracing::info!(tool = name, error, "a tool gave no result");
                    json!({"error": beginning(&error, max_result)}).to_string()
                }
            }
        }
    }

    fn begin(&self, call: &ToolCall) -> Result<(Running, Duration), String> {
        let name = &call.name;
        let Some(tool) = self.tools.iter().find(|tool| tool.spec.name == *name) else {
            let names: Vec<&str> = self.tools.iter().map(|tool| tool.spec.name.as_str()).collect();
            return Err(format!("there is no tool {name:?}; there are: {}", names.join(", ")));
        };
        let running = (tool.run)(&call.arguments)
            .map_err(|error| format!("these are not arguments of {name}: {error}"))?;
        Ok((running, tool.timeout))
    }
}

impl fmt::Debug for Tools {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.tools.iter().map(|tool| &tool.spec.name)).finish()
    }
}

/// Runs in a task of its own, which nobody aborts.
async fn run(name: &str, running: Running, timeout: Duration) -> Result<String, String> {
    let limited = tokio::time::timeout(timeout, AssertUnwindSafe(running).catch_unwind());
    match tokio::spawn(limited).await {
        Ok(Ok(Ok(result))) => result,
        Ok(Ok(Err(_))) => Err(format!("{name} panicked")),
        Ok(Err(_)) => Err(format!("{name} took longer than {timeout:?}")),
        Err(_) => Err(format!("{name} was ended with the program")),
    }
}

fn parse<A: DeserializeOwned>(arguments: &str) -> Result<A, String> {
    let arguments = if arguments.trim().is_empty() { "{}" } else { arguments };
    serde_json::from_str(arguments).or_else(|error| {
        // No arguments are an empty object to the model, and nothing at all to the type `()`.
        let empty = serde_json::from_str(arguments).is_ok_and(|json: Value| json == json!({}));
        let nothing = || serde_json::from_value(Value::Null).ok();
        empty.then(nothing).flatten().ok_or_else(|| error.to_string())
    })
}

/// The schema of a tool's arguments as chat completions take it: an object, with everything in its place and no dialect.
fn schema<A: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    let mut schema = settings.into_generator().into_root_schema_for::<A>().to_value();
    if schema["type"] == "null" {
        schema = json!({"type": "object"});
    }
    if let Value::Object(fields) = &mut schema {
        fields.remove("title");
        if fields.get("type").is_some_and(|kind| kind == "object") {
            fields.entry("properties").or_insert_with(|| json!({}));
        }
    }
    schema
}

/// A result that is not too long for the model.
fn fitting(json: String, most: usize) -> String {
    if json.len() <= most {
        return json;
    }
    json!({"truncated": beginning(&json, most), "bytes": json.len()}).to_string()
}

fn beginning(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use serde::Deserialize;
    use tokio::sync::Notify;
    use tokio::time::timeout;

    use super::*;

    #[derive(Deserialize, JsonSchema)]
    struct Trip {
        /// Where to.
        to: Place,
        /// How many go.
        #[serde(default)]
        people: Option<u32>,
    }

    #[derive(Deserialize, JsonSchema)]
    struct Place {
        city: String,
    }

    fn call(name: &str, arguments: &str) -> ToolCall {
        ToolCall { id: "call_1".into(), name: name.into(), arguments: arguments.into() }
    }

    fn error(result: &str) -> String {
        let json: Value = serde_json::from_str(result).expect("JSON");
        json["error"].as_str().expect("an error").to_owned()
    }

    fn trips() -> Tools {
        Tools::new().with("book", "Books a trip", |trip: Trip| async move {
            let people = trip.people.unwrap_or(1);
            Ok::<_, String>(json!({"to": trip.to.city, "people": people}))
        })
    }

    #[test]
    fn a_schema_has_everything_in_its_place() {
        let specs = trips().specs();
        assert_eq!(
            (specs[0].name.as_str(), specs[0].description.as_str()),
            ("book", "Books a trip")
        );
        let schema = &specs[0].parameters;
        assert_eq!(schema["type"], "object");
        assert_eq!(schema["properties"]["to"]["properties"]["city"]["type"], "string");
        assert_eq!(schema["properties"]["to"]["description"], "Where to.");
        assert_eq!(schema["required"], json!(["to"]));
        let text = schema.to_string();
        assert!(
            !text.contains("$schema") && !text.contains("$ref") && !text.contains("$defs"),
            "{text}"
        );
    }

    #[tokio::test]
    async fn a_tool_without_arguments() {
        let tools = Tools::new().with("roll", "Rolls a die", |(): ()| async { Ok::<_, String>(4) });
        assert_eq!(tools.specs()[0].parameters, json!({"type": "object", "properties": {}}));
        for arguments in ["", " ", "{}", "null"] {
            assert_eq!(tools.call(&call("roll", arguments)).await, "4");
        }
        assert!(error(&tools.call(&call("roll", "[6]")).await).contains("roll"));
    }

    #[tokio::test]
    async fn what_is_wrong_with_a_call_is_told() {
        let tools = trips();
        let book = |arguments| tools.call(&call("book", arguments));
        assert_eq!(book(r#"{"to":{"city":"Rome"}}"#).await, r#"{"to":"Rome","people":1}"#);
        for (arguments, expected) in [
            (r#"{"to":{"#, "EOF"),
            (r#"{"to":{}}"#, "missing field `city`"),
            (r#"{"to":{"city":"Rome"},"people":"two"}"#, "invalid type"),
            ("", "missing field `to`"),
            ("[]", "missing field"),
        ] {
            let error = error(&book(arguments).await);
            assert!(error.starts_with("these are not arguments of book: "), "{error}");
            assert!(error.contains(expected) || arguments == "[]", "{error}");
        }
        let unknown = error(&tools.call(&call("fly", "{}")).await);
        assert_eq!(unknown, "there is no tool \"fly\"; there are: book");
    }

    #[tokio::test]
    async fn whatever_a_tool_does_the_model_gets_an_answer() {
        let tools = Tools::new()
            .max_result(40)
            .with("fail", "", |(): ()| async { Err::<(), _>("out of paper") })
            .with("panic", "", |(): ()| async {
                assert!(std::hint::black_box(false), "the tool is broken");
                Ok::<_, String>(())
            })
            .with("talk", "", |(): ()| async { Ok::<_, String>("ä".repeat(100)) })
            .timeout(Duration::from_millis(20))
            .with("sleep", "", |(): ()| async {
                std::future::pending::<()>().await;
                Ok::<_, String>(())
            });
        let run = |name| tools.call(&call(name, "{}"));
        assert_eq!(run("fail").await, r#"{"error":"out of paper"}"#);
        assert_eq!(run("panic").await, r#"{"error":"panic panicked"}"#);
        assert_eq!(run("talk").await, r#"{"truncated":"\"äääääääääääääääääää","bytes":202}"#);
        assert_eq!(run("sleep").await, r#"{"error":"sleep took longer than 20ms"}"#);
    }

    #[tokio::test]
    async fn nobody_interrupts_a_tool() {
        let (begun, go, done) =
            (Arc::new(Notify::new()), Arc::new(Notify::new()), Arc::new(Notify::new()));
        let whole = Arc::new(AtomicBool::new(false));
        let parts = (Arc::clone(&begun), Arc::clone(&go), Arc::clone(&done), Arc::clone(&whole));
        let tools = Tools::new().with("pay", "", move |(): ()| {
            let (begun, go, done, whole) = parts.clone();
            async move {
                begun.notify_one();
                go.notified().await;
                whole.store(true, Ordering::Relaxed);
                done.notify_one();
                Ok::<_, String>(())
            }
        });
        let calling = tokio::spawn(tools.call(&call("pay", "{}")));
        begun.notified().await;
        calling.abort();
        assert!(calling.await.is_err());
        go.notify_one();
        timeout(Duration::from_secs(20), done.notified()).await.expect("an end");
        assert!(whole.load(Ordering::Relaxed));
    }

    #[test]
    fn the_last_of_a_name_counts() {
        let tools = trips().with("book", "Reads", |(): ()| async { Ok::<_, String>(()) });
        assert_eq!(tools.specs().len(), 1);
        assert_eq!(tools.specs()[0].description, "Reads");
        assert_eq!(format!("{tools:?}"), r#"["book"]"#);
        assert!(Tools::new().is_empty() && !tools.is_empty());
    }
}
