//! Each wrong request on each route: the error has the status, the shape and the words of its dialect.

use serde_json::{Value, json};

use super::exchange::{DOCUMENTS, QUERY, TestReply, TestRequest, TestServer, post, with};

/// A route and what its fields are called.
pub(crate) struct Route {
    pub(crate) path: &'static str,
    /// The field of the query.
    query: &'static str,
    /// The field of the texts.
    texts: &'static str,
    /// The field of the number of results, if it has one.
    top: &'static str,
}

const COHERE_V2: Route =
    Route { path: "/v2/rerank", query: "query", texts: "documents", top: "top_n" };
const COHERE_V1: Route = Route { path: "/cohere/v1/rerank", ..COHERE_V2 };
const V1: Route = Route { path: "/v1/rerank", ..COHERE_V2 };
const JINA: Route = Route { path: "/jina/v1/rerank", ..COHERE_V2 };
const VOYAGE: Route = Route { path: "/voyage/v1/rerank", top: "top_k", ..COHERE_V2 };
const TEI: Route = Route { path: "/rerank", texts: "texts", top: "", ..COHERE_V2 };
const VLLM: Route = Route { path: "/vllm/v1/rerank", ..COHERE_V2 };
const INFINITY: Route = Route { path: "/infinity/rerank", ..COHERE_V2 };
const SCORE: Route = Route { path: "/v1/score", query: "text_1", texts: "text_2", top: "" };
const NATIVE: Route = Route { path: "/topshelf/v1/rerank", ..COHERE_V2 };

/// The routes that rerank documents of the request.
pub(crate) const ROUTES: [Route; 10] =
    [COHERE_V2, COHERE_V1, V1, JINA, VOYAGE, TEI, VLLM, INFINITY, SCORE, NATIVE];

impl Route {
    /// A valid body.
    pub(crate) fn body(&self) -> Value {
        let mut body = json!({self.query: QUERY, self.texts: DOCUMENTS});
        if self.texts != "texts" {
            body["model"] = json!("overlap");
        }
        body
    }

    /// A valid request with these fields laid over its body.
    fn with(&self, fields: Value) -> TestRequest {
        post(self.path, with(self.body(), fields))
    }

    /// A valid request.
    fn valid(&self) -> TestRequest {
        self.with(json!({}))
    }

    /// A valid request of that body.
    fn bytes(&self, body: &'static [u8]) -> TestRequest {
        self.valid().body(body)
    }
}

/// A wrong request on that route, and what came of it.
mod fault {
    use super::*;

    async fn ask(request: TestRequest) -> TestReply {
        TestServer::new().send(request).await
    }

    pub(super) async fn empty_query(route: &Route) -> TestReply {
        ask(route.with(json!({route.query: " \n"}))).await
    }

    pub(super) async fn overlong_query(route: &Route) -> TestReply {
        ask(route.with(json!({route.query: "ä".repeat(10_001)}))).await
    }

    pub(super) async fn wrong_query(route: &Route) -> TestReply {
        ask(route.with(json!({route.query: 7}))).await
    }

    pub(super) async fn no_query(route: &Route) -> TestReply {
        ask(route.with(json!({route.query: null}))).await
    }

    pub(super) async fn no_texts(route: &Route) -> TestReply {
        ask(route.with(json!({route.texts: []}))).await
    }

    pub(super) async fn blank_text(route: &Route) -> TestReply {
        ask(route.with(json!({route.texts: ["A flea.", " "]}))).await
    }

    pub(super) async fn wrong_texts(route: &Route) -> TestReply {
        ask(route.with(json!({route.texts: 7}))).await
    }

    pub(super) async fn wrong_text(route: &Route) -> TestReply {
        ask(route.with(json!({route.texts: ["A flea.", 7]}))).await
    }

    pub(super) async fn missing_texts(route: &Route) -> TestReply {
        ask(route.with(json!({route.texts: null}))).await
    }

    pub(super) async fn too_many_texts(route: &Route) -> TestReply {
        let server = TestServer::with(|options| options.limits.documents = 3);
        server.send(route.valid()).await
    }

    pub(super) async fn unknown_field(route: &Route) -> TestReply {
        ask(route.with(json!({"somebody": "else's"}))).await
    }

    pub(super) async fn unknown_model(route: &Route) -> TestReply {
        ask(route.with(json!({"model": "nobody"}))).await
    }

    pub(super) async fn wrong_model(route: &Route) -> TestReply {
        ask(route.with(json!({"model": ["overlap"]}))).await
    }

    pub(super) async fn no_results(route: &Route) -> TestReply {
        ask(route.with(json!({route.top: 0}))).await
    }

    pub(super) async fn negative_results(route: &Route) -> TestReply {
        ask(route.with(json!({route.top: -1}))).await
    }

    pub(super) async fn endless_results(route: &Route) -> TestReply {
        ask(route.with(json!({route.top: 1e300}))).await
    }

    pub(super) async fn empty_body(route: &Route) -> TestReply {
        ask(route.bytes(b"")).await
    }

    pub(super) async fn no_json(route: &Route) -> TestReply {
        ask(route.bytes(b"query=a&documents=b")).await
    }

    pub(super) async fn broken_off(route: &Route) -> TestReply {
        ask(route.bytes(b"{\"query\": \"a")).await
    }

    pub(super) async fn not_utf8(route: &Route) -> TestReply {
        let body = format!("{{\"{}\": \"", route.query).into_bytes();
        ask(route.valid().body([body, b"\xff\xfe\"}".to_vec()].concat())).await
    }

    pub(super) async fn not_an_object(route: &Route) -> TestReply {
        ask(route.bytes(b"[\"overlap\", \"a flea\", [\"A flea.\"], null, null, null]")).await
    }

    pub(super) async fn other_content_type(route: &Route) -> TestReply {
        ask(route.valid().header("content-type", "text/plain")).await
    }

    pub(super) async fn wrong_deadline(route: &Route) -> TestReply {
        ask(route.valid().header("x-topshelf-deadline-ms", "soon")).await
    }

    pub(super) async fn too_large(route: &Route) -> TestReply {
        TestServer::with(|options| options.limits.body = 10).send(route.valid()).await
    }

    pub(super) async fn overload(route: &Route) -> TestReply {
        let server = TestServer::with(|options| options.limits.requests = 1);
        let _held = server.app.admission.admit(1).expect("there is room");
        server.send(route.valid()).await
    }

    pub(super) async fn shutdown(route: &Route) -> TestReply {
        let server = TestServer::new();
        server.app.admission.close();
        server.send(route.valid()).await
    }
}

/// A test for each fault of a route, whose exchange is compared with a snapshot.
macro_rules! faults {
    ($($name:ident, $route:ident: $($fault:ident)*;)*) => {$(
        mod $name {
            $(
                #[tokio::test]
                async fn $fault() {
                    let reply = super::fault::$fault(&super::$route).await;
                    reply.matches(concat!("faults/", stringify!($name)), stringify!($fault));
                }
            )*
        }
    )*};
}

faults! {
    cohere_v2, COHERE_V2:
        empty_query overlong_query wrong_query no_query no_texts blank_text wrong_texts wrong_text missing_texts
        too_many_texts unknown_field unknown_model wrong_model no_results negative_results endless_results
        empty_body no_json broken_off not_utf8 not_an_object other_content_type wrong_deadline too_large
        overload shutdown;
    cohere_v1, COHERE_V1:
        empty_query overlong_query wrong_query no_query no_texts blank_text wrong_texts wrong_text missing_texts
        too_many_texts unknown_field unknown_model wrong_model no_results negative_results endless_results
        empty_body no_json broken_off not_utf8 not_an_object other_content_type wrong_deadline too_large
        overload shutdown;
    v1, V1:
        empty_query wrong_query no_texts wrong_texts missing_texts unknown_model no_results empty_body no_json
        not_an_object too_large overload shutdown;
    jina, JINA:
        empty_query overlong_query wrong_query no_query no_texts blank_text wrong_texts wrong_text missing_texts
        too_many_texts unknown_field unknown_model wrong_model no_results negative_results endless_results
        empty_body no_json broken_off not_utf8 not_an_object other_content_type wrong_deadline too_large
        overload shutdown;
    voyage, VOYAGE:
        empty_query overlong_query wrong_query no_query no_texts blank_text wrong_texts wrong_text missing_texts
        too_many_texts unknown_field unknown_model wrong_model no_results negative_results endless_results
        empty_body no_json broken_off not_utf8 not_an_object other_content_type wrong_deadline too_large
        overload shutdown;
    tei, TEI:
        empty_query overlong_query wrong_query no_query no_texts blank_text wrong_texts wrong_text missing_texts
        too_many_texts unknown_field empty_body no_json broken_off not_utf8 not_an_object other_content_type
        wrong_deadline too_large overload shutdown;
    vllm, VLLM:
        empty_query overlong_query wrong_query no_query no_texts blank_text wrong_texts wrong_text missing_texts
        too_many_texts unknown_field unknown_model wrong_model no_results negative_results endless_results
        empty_body no_json broken_off not_utf8 not_an_object other_content_type wrong_deadline too_large
        overload shutdown;
    infinity, INFINITY:
        empty_query wrong_query no_texts wrong_texts too_many_texts unknown_model empty_body no_json
        not_an_object too_large overload shutdown;
    score, SCORE:
        empty_query wrong_query no_query no_texts blank_text wrong_texts wrong_text missing_texts too_many_texts
        unknown_field unknown_model wrong_model empty_body no_json broken_off not_utf8 not_an_object
        other_content_type wrong_deadline too_large overload shutdown;
    native, NATIVE:
        empty_query overlong_query wrong_query no_query no_texts blank_text wrong_texts wrong_text missing_texts
        too_many_texts unknown_field unknown_model wrong_model no_results negative_results endless_results
        empty_body no_json broken_off not_utf8 not_an_object other_content_type wrong_deadline too_large
        overload shutdown;
}

/// Routes that take texts of other kinds, and what has to hold for each.
mod others {
    use super::*;

    fn routes() -> [(&'static str, Value); 4] {
        [
            ("/embed", json!({"inputs": DOCUMENTS})),
            ("/v1/embeddings", json!({"input": DOCUMENTS})),
            ("/v1/search", json!({"query": QUERY})),
            (
                "/v1/context",
                json!({"query": QUERY, "passages": [{"text": "A flea."}, {"text": "A dog."}]}),
            ),
        ]
    }

    fn name(path: &str) -> String {
        path.trim_start_matches("/v1").trim_start_matches('/').to_owned()
    }

    #[tokio::test]
    async fn overload() {
        let server = TestServer::with(|options| options.limits.requests = 1);
        let _held = server.app.admission.admit(1).expect("there is room");
        for (path, body) in &routes()[..3] {
            server.send(post(path, body.clone())).await.matches("faults/overload", &name(path));
        }
    }

    #[tokio::test]
    async fn shutdown() {
        let server = TestServer::new();
        server.app.admission.close();
        for (path, body) in &routes()[..3] {
            server.send(post(path, body.clone())).await.matches("faults/shutdown", &name(path));
        }
    }

    #[tokio::test]
    async fn too_large() {
        let server = TestServer::with(|options| options.limits.body = 10);
        for (path, body) in routes() {
            server.send(post(path, body)).await.matches("faults/too_large", &name(path));
        }
    }

    #[tokio::test]
    async fn too_many_texts() {
        let server = TestServer::with(|options| options.limits.documents = 1);
        for (path, body) in &routes()[..2] {
            server.send(post(path, body.clone())).await.matches("faults/too_many", &name(path));
        }
    }

    #[tokio::test]
    async fn no_json() {
        let server = TestServer::new();
        for (path, body) in routes() {
            let asked = post(path, body).body("{\"query\":");
            server.send(asked).await.matches("faults/no_json", &name(path));
        }
    }

    #[tokio::test]
    async fn other_content_type() {
        let server = TestServer::new();
        for (path, body) in routes() {
            let usual = server.send(post(path, body.clone())).await;
            let asked =
                post(path, body).header("content-type", "application/x-www-form-urlencoded");
            assert_eq!(server.send(asked).await.settled(), usual.settled(), "{path}");
        }
    }
}
