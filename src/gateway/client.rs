//! The REST calls to a gateway.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{ACCEPT_ENCODING, AUTHORIZATION};
use reqwest::{Method, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::answer::{Answer, Unread, excerpt};
use super::endpoint::Endpoint;
use super::failure::Failure;
use super::kernel::{KernelInfo, KernelSpecs, KernelSpecsAnswer, is_valid_id};
use super::readiness::Backoff;
use super::resolve::SystemResolver;
use super::xsrf::Xsrf;
use crate::proxy::{Proxies, Proxy};
use crate::{Error, Result, tls};

/// How long a call may take that only reads or signals.
const CALL_LIMIT: Duration = Duration::from_secs(30);

/// How long the gateway may take to send a signal, at the first attempt and at the second.
const SIGNAL_LIMITS: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(4)];

/// While a kernel restarts, the gateway is asked now and then whether it is still there. On a machine under load a
/// single question may go unanswered: it is asked once more.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const LOOK_LIMITS: [Duration; 2] = [Duration::from_secs(4), Duration::from_secs(8)];

/// How long a restart may take, on a gateway that answers other requests meanwhile.
const RESTART_LIMIT: Duration = Duration::from_secs(30);

/// How long a call may take that starts or ends a kernel's process.
const PROCESS_CALL_LIMIT: Duration = Duration::from_secs(60);

/// How long a connection is kept for another call. One that lay idle for longer may have gone silent on the way, and a
/// call on it would wait in vain.
const REUSED_WITHIN: Duration = Duration::from_secs(1);

/// How often the start of a kernel is attempted before its failure is believed.
const CREATE_ATTEMPTS: u32 = 5;

/// A client for one gateway; a clone shares its connections.
///
/// Proxies are taken from the environment (`HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY`) and never asked
/// for a host on the loopback interface. Redirects are not followed.
#[derive(Clone)]
pub struct GatewayClient {
    endpoint: Arc<Endpoint>,
    tls: Option<Arc<rustls::ClientConfig>>,
    proxy: Option<Proxy>,
    http: reqwest::Client,
    /// Opens a connection for each call.
    anew: reqwest::Client,
    xsrf: Arc<Xsrf>,
}

impl GatewayClient {
    /// Makes a client; nothing is sent yet. `extra_ca_pem` is trusted besides the platform's roots, and is not
    /// looked at where neither the endpoint nor the proxy speaks TLS.
    pub fn new(endpoint: Endpoint, extra_ca_pem: Option<&[u8]>) -> Result<Self> {
        Self::with_proxies(endpoint, extra_ca_pem, &Proxies::from_environment())
    }

    /// [`Self::new`] with proxies of one's own choice.
    pub fn with_proxies(endpoint: Endpoint, extra_ca_pem: Option<&[u8]>, proxies: &Proxies) -> Result<Self> {
        let proxy = if endpoint.is_loopback() { None } else { proxies.choose(endpoint.url())? };
        let speaks_tls = endpoint.is_tls() || proxy.as_ref().is_some_and(Proxy::is_tls);
        let tls = speaks_tls.then(|| tls::client_config(extra_ca_pem)).transpose()?;
        let config = match &tls {
            Some(config) => rustls::ClientConfig::clone(config),
            None => tls::without_roots()?,
        };
        let client = |most_idle| {
            let mut builder = reqwest::Client::builder()
                .tls_backend_preconfigured(config.clone())
                .dns_resolver(SystemResolver)
                .redirect(reqwest::redirect::Policy::none())
                .user_agent(concat!("sandkernel/", env!("CARGO_PKG_VERSION")))
                .referer(false)
                .tcp_nodelay(true)
                .pool_max_idle_per_host(most_idle)
                .pool_idle_timeout(REUSED_WITHIN)
                // The proxy is chosen above, for the websocket too.
                .no_proxy();
            if let Some(proxy) = &proxy {
                builder = builder.proxy(proxy.for_requests()?);
            }
            builder.build().map_err(|error| {
                Error::Configuration(format!("the HTTP client can't be set up: {}", error.without_url()))
            })
        };
        // One is enough for the calls in a row of a session that opens.
        let (http, anew) = (client(1)?, client(0)?);
        let (endpoint, xsrf) = (Arc::new(endpoint), Arc::default());
        Ok(Self { endpoint, tls, proxy, http, anew, xsrf })
    }

    /// Where the gateway is.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The TLS configuration, for the websocket to share; `None` where no TLS is spoken.
    #[must_use]
    pub fn tls(&self) -> Option<Arc<rustls::ClientConfig>> {
        self.tls.clone()
    }

    /// The proxy on the way to the gateway, for the websocket to share.
    #[must_use]
    pub fn proxy(&self) -> Option<&Proxy> {
        self.proxy.as_ref()
    }

    /// The kinds of kernel that the gateway can start.
    pub async fn kernel_specs(&self) -> Result<KernelSpecs> {
        self.fetch_kernel_specs("listing the kernelspecs", CALL_LIMIT).await.map_err(|failure| failure.error)
    }

    /// Starts a kernel of the kernelspec `name`, or of the gateway's default.
    ///
    /// A busy gateway fails to start a kernel now and then, so an answer of 404, 500, 502 or 503 is retried for
    /// a few seconds. A lost answer is not: the kernel may have been started.
    pub async fn create_kernel(&self, name: Option<&str>) -> Result<KernelInfo> {
        const OPERATION: &str = "creating a kernel";
        let body = name.map_or_else(|| json!({}), |name| json!({ "name": name }));
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1), 2.0);
        let mut attempt = 1;
        loop {
            let answer = self
                .send(OPERATION, Method::POST, &["api", "kernels"], Some(&body), PROCESS_CALL_LIMIT)
                .await
                .map_err(|failure| failure.error)?;
            if matches!(answer.status.as_u16(), 404 | 500 | 502 | 503) {
                // Not before the first failure: a kernel that starts costs one request.
                if let Some(name) = name.filter(|_| attempt == 1) {
                    self.check_kernel_spec(OPERATION, name).await?;
                }
                if attempt < CREATE_ATTEMPTS {
                    attempt += 1;
                    tokio::time::sleep(backoff.next_delay()).await;
                    continue;
                }
            }
            return self.parse(OPERATION, &answer);
        }
    }

    /// The kernel of that id, or [`Error::KernelNotFound`].
    pub async fn get_kernel(&self, id: &str) -> Result<KernelInfo> {
        const OPERATION: &str = "looking up a kernel";
        let answer = self.call(OPERATION, Method::GET, id, None, CALL_LIMIT).await?;
        self.parse(OPERATION, &answer)
    }

    /// All kernels. A kernel gateway refuses this unless it was started with `KG_LIST_KERNELS=True`.
    pub async fn list_kernels(&self) -> Result<Vec<KernelInfo>> {
        const OPERATION: &str = "listing the kernels";
        let answer = self
            .send(OPERATION, Method::GET, &["api", "kernels"], None, CALL_LIMIT)
            .await
            .map_err(|failure| failure.error)?;
        if answer.status == StatusCode::FORBIDDEN {
            let said = answer.describe(&self.endpoint);
            let reason = format!("{said}; a kernel gateway lists them only with KG_LIST_KERNELS=True");
            return Err(Error::Gateway { operation: OPERATION, reason });
        }
        self.parse(OPERATION, &answer)
    }

    /// Sends the kernel an interrupt: its code sees a `KeyboardInterrupt`. A gateway that does not answer is asked a
    /// second time, on a new connection.
    pub async fn interrupt_kernel(&self, id: &str) -> Result<()> {
        const OPERATION: &str = "interrupting a kernel";
        let [first, second] = SIGNAL_LIMITS;
        let attempt = |limit| self.call(OPERATION, Method::POST, id, Some("interrupt"), limit);
        let answer = match attempt(first).await {
            Err(Error::Gateway { .. }) => attempt(second).await?,
            outcome => outcome?,
        };
        self.expect_success(OPERATION, &answer)
    }

    /// Ends the kernel's process and starts another one under the same id, for as long as the gateway answers other
    /// requests meanwhile.
    pub async fn restart_kernel(&self, id: &str) -> Result<()> {
        const OPERATION: &str = "restarting a kernel";
        let mut restart = pin!(self.call(OPERATION, Method::POST, id, Some("restart"), RESTART_LIMIT));
        let answer = loop {
            if let Ok(answer) = timeout(LOOK_EVERY, &mut restart).await {
                break answer?;
            }
            tokio::select! {
                biased;
                answer = &mut restart => break answer?,
                seen = self.look(OPERATION, id) => seen?,
            }
        };
        if answer.status == StatusCode::INTERNAL_SERVER_ERROR {
            // A Jupyter server gives this also for a kernel that it does not know.
            self.get_kernel(id).await?;
        }
        self.expect_success(OPERATION, &answer)
    }

    /// Whether the gateway still answers, and has the kernel.
    async fn look(&self, operation: &'static str, id: &str) -> Result<()> {
        let [first, second] = LOOK_LIMITS;
        match self.call(operation, Method::GET, id, None, first).await {
            Ok(_) => Ok(()),
            Err(error @ Error::KernelNotFound { .. }) => Err(error),
            Err(_) => self.call(operation, Method::GET, id, None, second).await.map(drop),
        }
    }

    /// Ends the kernel. A kernel that is not there has been ended.
    pub async fn delete_kernel(&self, id: &str) -> Result<()> {
        const OPERATION: &str = "shutting a kernel down";
        match self.call(OPERATION, Method::DELETE, id, None, PROCESS_CALL_LIMIT).await {
            Ok(answer) => self.expect_success(OPERATION, &answer),
            Err(Error::KernelNotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// One call about one kernel.
    async fn call(
        &self,
        operation: &'static str,
        method: Method,
        id: &str,
        action: Option<&str>,
        limit: Duration,
    ) -> Result<Answer> {
        let not_found = || Error::KernelNotFound { kernel_id: excerpt(&self.endpoint, id) };
        if !is_valid_id(id) {
            return Err(not_found());
        }
        let mut path = vec!["api", "kernels", id];
        path.extend(action);
        let answer =
            self.send(operation, method, &path, None, limit).await.map_err(|failure| failure.error)?;
        if answer.status == StatusCode::NOT_FOUND { Err(not_found()) } else { Ok(answer) }
    }

    /// The kernelspecs, which only one who has the token is told.
    pub(super) async fn fetch_kernel_specs(
        &self,
        operation: &'static str,
        limit: Duration,
    ) -> Result<KernelSpecs, Failure> {
        let answer = self.send(operation, Method::GET, &["api", "kernelspecs"], None, limit).await?;
        match self.parse::<KernelSpecsAnswer>(operation, &answer) {
            Ok(specs) => Ok(specs.into()),
            Err(error) if is_passing(answer.status) => Err(Failure::passing(error)),
            Err(error) => Err(Failure::lasting(error)),
        }
    }

    async fn check_kernel_spec(&self, operation: &'static str, name: &str) -> Result<()> {
        // Whatever else is wrong, the next attempt says so.
        let Ok(specs) = self.kernel_specs().await else { return Ok(()) };
        if specs.names.iter().any(|known| known == name) {
            return Ok(());
        }
        let known = excerpt(&self.endpoint, &specs.names.join(", "));
        Err(Error::Gateway {
            operation,
            reason: format!(
                "there is no kernelspec {}; the gateway has: {known}",
                excerpt(&self.endpoint, name)
            ),
        })
    }

    /// Sends one request and reads its answer; redirects and a refused token are failures already here.
    async fn send(
        &self,
        operation: &'static str,
        method: Method,
        path: &[&str],
        body: Option<&Value>,
        limit: Duration,
    ) -> Result<Answer, Failure> {
        let end = Instant::now() + limit;
        let remaining = || end.saturating_duration_since(Instant::now());
        let mut answer = self.ask(&method, path, body, remaining()).await;
        if matches!(&answer, Ok(answer) if Xsrf::is_missed(answer)) && self.fetch_xsrf(remaining()).await {
            // It was refused, and so nothing was done.
            answer = self.ask(&method, path, body, remaining()).await;
        }
        if let Some(refused) = self.refused_by_proxy(operation, &answer, remaining()).await {
            return Err(refused);
        }
        let answer = answer.map_err(|unread| Failure::unread(&self.endpoint, operation, limit, unread))?;
        if answer.asks_to_log_in(&self.endpoint) {
            return Err(self.unauthorized(answer.status));
        }
        match answer.status {
            status if status.is_redirection() => Err(Failure::redirect(&self.endpoint, operation, &answer)),
            // A 403 to these two is about what the gateway allows: not to list kernels, or not more of them.
            StatusCode::FORBIDDEN if path == ["api", "kernels"] => Ok(answer),
            status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => Err(self.unauthorized(status)),
            _ => Ok(answer),
        }
    }

    fn unauthorized(&self, status: StatusCode) -> Failure {
        Failure::lasting(Error::Auth { url: self.endpoint.url().to_string(), status: status.as_u16() })
    }

    /// Asks the gateway. A server may close a connection just behind its answer, when the next request is already on its
    /// way: what may be asked twice then is, on a connection of its own, and what may not has one from the beginning.
    async fn ask(
        &self,
        method: &Method,
        path: &[&str],
        body: Option<&Value>,
        limit: Duration,
    ) -> Result<Answer, Unread> {
        let began = Instant::now();
        if body.is_some() {
            return self.request(&self.anew, method, path, body, limit).await;
        }
        match self.request(&self.http, method, path, body, limit).await {
            Err(Unread::Broken(error)) if was_closed(&error) => {
                self.request(&self.anew, method, path, body, limit.saturating_sub(began.elapsed())).await
            }
            outcome => outcome,
        }
    }

    async fn request(
        &self,
        client: &reqwest::Client,
        method: &Method,
        path: &[&str],
        body: Option<&Value>,
        limit: Duration,
    ) -> Result<Answer, Unread> {
        let mut url = self.endpoint.rest(path);
        if let Some(query) = self.endpoint.secret_query() {
            url.set_query(query.to_str().ok());
        }
        let mut request = client
            .request(method.clone(), url)
            .timeout(limit)
            .header(ACCEPT_ENCODING, "identity")
            .headers(self.xsrf.headers());
        if let Some(authorization) = self.endpoint.authorization() {
            request = request.header(AUTHORIZATION, authorization);
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        Answer::read(request.send().await.map_err(Unread::Broken)?).await
    }

    /// Fetches the token against cross-site requests: it comes with the pages of a Jupyter server.
    async fn fetch_xsrf(&self, limit: Duration) -> bool {
        let page = self.request(&self.http, &Method::GET, &[""], None, limit).await;
        page.is_ok_and(|page| self.xsrf.take(&page.headers))
    }

    /// What the proxy says of the way to the gateway, where it may be the proxy that a request failed at: the HTTP
    /// client tells neither its answers from the gateway's nor what it answered.
    async fn refused_by_proxy(
        &self,
        operation: &'static str,
        answer: &Result<Answer, Unread>,
        limit: Duration,
    ) -> Option<Failure> {
        let proxy = self.proxy.as_ref()?;
        let suspected = match answer {
            Ok(answer) => matches!(answer.status.as_u16(), 403 | 407 | 502..=504),
            Err(unread) => matches!(unread, Unread::Broken(_)),
        };
        if !suspected {
            return None;
        }
        let (host, port) = (self.endpoint.host(), self.endpoint.port());
        let asked = async {
            let stream = TcpStream::connect(proxy.address()).await?;
            proxy.tunnel(stream, self.tls.clone(), host, port).await.map(drop)
        };
        let failure = timeout(limit, Box::pin(asked)).await.ok()?.err()?;
        let passing = !failure.is_lasting();
        let error = match failure.into_error(proxy, host, port) {
            Error::ConnectionLost { reason, .. } => Error::Gateway { operation, reason },
            error => error,
        };
        Some(Failure { error, passing })
    }

    fn parse<T: DeserializeOwned>(&self, operation: &'static str, answer: &Answer) -> Result<T> {
        self.expect_success(operation, answer)?;
        answer.json().ok_or_else(|| Error::Gateway {
            operation,
            reason: format!(
                "the server answers, but is no Jupyter gateway ({}); check the URL and its base path",
                answer.describe(&self.endpoint)
            ),
        })
    }

    fn expect_success(&self, operation: &'static str, answer: &Answer) -> Result<()> {
        if answer.status.is_success() {
            return Ok(());
        }
        let hint =
            if answer.status == StatusCode::NOT_FOUND { "; check the URL and its base path" } else { "" };
        Err(Error::Gateway { operation, reason: format!("{}{hint}", answer.describe(&self.endpoint)) })
    }
}

impl fmt::Debug for GatewayClient {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("GatewayClient").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

/// Whether a connection was closed in the place of an answer, so that another one may well give it.
fn was_closed(error: &reqwest::Error) -> bool {
    error.is_request() && !error.is_timeout() && !error.is_connect()
}

/// Whether a server that is still coming up may answer so.
///
/// A 404 is among them, though a wrong base path gives it too: the fronts of tunnels and clusters answer it
/// until they know the way to a server that boots. Who waits in vain is told of the base path.
fn is_passing(status: StatusCode) -> bool {
    // 424 is JupyterHub's for a server that is not running (yet); 425 and 429 ask for patience.
    status.is_server_error() || matches!(status.as_u16(), 404 | 408 | 424 | 425 | 429)
}
