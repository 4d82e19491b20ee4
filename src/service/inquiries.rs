//! Answers the questions of authentication: custom servers and clusters over HTTPS, passwords in a worker thread.
//!
//! How many questions are open at a time is bounded by who asks. Passwords are hashed one after the other: a hash costs a
//! core for a tenth of a second on purpose, and the broker needs the others.

use crate::authentication::custom::{self, Attempt, CustomAnswer};
use crate::authentication::token_review::{self, ClusterAnswer};
use crate::authentication::{Answer, Credential, Inquiry, PasswordRefusal, Proof, Question, Refusal};
use crate::broker::Ticket;
use crate::https::{Request, Server};
use crate::platform::SystemClock;
use core::cell::{Cell, RefCell};
use core::sync::atomic::Ordering;
use smol::LocalExecutor;
use smol::channel::{Receiver, Sender};
use smol::lock::Semaphore;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// Passwords that are hashed at a time.
const HASHES_MAX: usize = 1;
/// Lines about questions without an answer in one period.
const COMPLAINTS_MAX: u32 = 100;
/// That period.
const COMPLAINT_PERIOD: Duration = Duration::from_secs(1);
/// Longest bearer token of a cluster, bytes.
const BEARER_BYTES_MAX: u64 = 64 * 1024;
/// Bytes that one question under way to a server may take: what is asked (its share of what all may ask, escaped), the answer, and
/// TLS.
pub const QUESTION_BYTES_MAX: u64 = 448 * 1024;

/// A cluster that judges tokens.
pub struct Cluster {
    /// Its API server.
    pub server: Server,
    /// The file with the token that we show to it, if that is how it knows us. Read each time: it is renewed by others.
    pub bearer: Option<PathBuf>,
}

/// Whom to ask.
pub struct Inquiries {
    /// Custom servers by BrokerAuthentication and method.
    pub custom: RefCell<BTreeMap<(u16, u16), Rc<Server>>>,
    /// The cluster.
    pub cluster: RefCell<Option<Rc<Cluster>>>,
    /// Audiences by BrokerAuthentication and method.
    pub audiences: BTreeMap<(u16, u16), Vec<String>>,
    hashing: Semaphore,
    /// Since when it has been said that somebody could not be asked, and how often.
    complained: Cell<(Option<Instant>, u32)>,
}

impl Default for Inquiries {
    fn default() -> Self {
        Self::new(BTreeMap::new())
    }
}

impl Inquiries {
    /// Nobody to ask yet but for passwords.
    #[must_use]
    pub fn new(audiences: BTreeMap<(u16, u16), Vec<String>>) -> Self {
        Self {
            custom: RefCell::default(),
            cluster: RefCell::default(),
            audiences,
            hashing: Semaphore::new(HASHES_MAX),
            complained: Cell::default(),
        }
    }

    /// Answers questions until nobody asks any more; each is a task of its own.
    pub async fn serve(
        self: Rc<Self>,
        executor: Rc<LocalExecutor<'static>>,
        questions: Receiver<(Ticket, Question)>,
        answers: Sender<(Ticket, Answer)>,
    ) {
        while let Ok((ticket, question)) = questions.recv().await {
            let (inquiries, answers) = (Rc::clone(&self), answers.clone());
            executor
                .spawn(async move {
                    let answer = inquiries.answer(question).await;
                    if let Answer::Unavailable(why) = &answer {
                        inquiries.complain(why);
                    }
                    // Nobody waits any more once the loop has ended.
                    let _ = answers.send((ticket, answer)).await;
                })
                .detach();
        }
    }

    /// Says that somebody could not be asked: so many times a second, because clients ask as often as they like.
    fn complain(&self, why: &str) {
        let (since, said) = self.complained.get();
        let since = since.filter(|since| since.elapsed() < COMPLAINT_PERIOD);
        let said = if since.is_some() { said.saturating_add(1) } else { 1 };
        self.complained.set((since.or_else(|| Some(Instant::now())), said));
        match said {
            0..COMPLAINTS_MAX => log::error!("authentication: {why}"),
            COMPLAINTS_MAX => log::error!("authentication: {why}; more of the kind are not said in this second"),
            _ => {}
        }
    }

    async fn answer(&self, question: Question) -> Answer {
        let place = (question.authenticator, question.method);
        let abandoned = question.abandoned;
        match question.inquiry {
            Inquiry::Custom(body) => {
                let server = self.custom.borrow().get(&place).cloned();
                match server {
                    Some(server) => ask_custom(&server, &body).await,
                    None => unavailable("the custom server cannot be asked: its certificate or trust is missing"),
                }
            }
            Inquiry::TokenReview(token) => {
                let cluster = self.cluster.borrow().clone();
                match (cluster, self.audiences.get(&place)) {
                    (Some(cluster), Some(audiences)) => ask_cluster(&cluster, &token, audiences).await,
                    _ => unavailable("the cluster cannot be asked: its certificate or trust is missing"),
                }
            }
            Inquiry::Password { credential, password } => {
                let _turn = self.hashing.acquire().await;
                if abandoned.load(Ordering::Relaxed) {
                    // Nobody hears it.
                    return Answer::Refused(Refusal::Password);
                }
                smol::unblock(move || check(credential, &password)).await
            }
        }
    }
}

fn check(credential: Credential, password: &[u8]) -> Answer {
    match credential.verify(password) {
        Ok(attributes) => Answer::Proven(Proof { attributes, ..Proof::default() }),
        Err(PasswordRefusal::Wrong) => Answer::Refused(Refusal::Password),
        Err(fault @ PasswordRefusal::NoMemory) => Answer::Refused(Refusal::Unavailable(fault.to_string())),
    }
}

async fn ask_custom(server: &Server, body: &[u8]) -> Answer {
    let request = Request { method: "POST", target: custom::TARGET, header: None, body };
    let mut attempt = Attempt::First;
    loop {
        let response = match server.exchange(&request).await {
            Ok(response) => response,
            Err(fault) => return Answer::Unavailable(format!("the custom server does not answer: {fault}")),
        };
        match custom::judge(response.status, &response.body, attempt, SystemClock::unix()) {
            CustomAnswer::Accepted { attributes, expires } => {
                return Answer::Proven(Proof { account: String::new(), attributes, expires });
            }
            CustomAnswer::Refused { reason, message } => {
                return Answer::Refused(Refusal::Custom { reason, message: message.to_string() });
            }
            CustomAnswer::Unavailable(why) => return Answer::Unavailable(why.to_string()),
            CustomAnswer::RetryWithVersion => attempt = Attempt::Second,
        }
    }
}

async fn ask_cluster(cluster: &Cluster, token: &[u8], audiences: &[String]) -> Answer {
    let refused = |why: &dyn core::fmt::Display| Answer::Refused(Refusal::Token(why.to_string()));
    let Some(body) = token_review::encode(token, audiences) else { return refused(&"it is not text") };
    let expires = match token_review::expiry(token) {
        Ok(expires) => expires,
        Err(fault) => return refused(&fault),
    };
    let bearer = match cluster.bearer.as_ref().map(read_bearer).transpose() {
        Ok(bearer) => bearer,
        Err(error) => return Answer::Unavailable(format!("the token for the cluster cannot be read: {error}")),
    };
    let header = bearer.as_ref().map(|bearer| ("Authorization", bearer.as_str()));
    let review = Request { method: "POST", target: token_review::TARGET, header, body: &body };
    let response = match cluster.server.exchange(&review).await {
        Ok(response) => response,
        Err(fault) => return Answer::Unavailable(format!("the cluster does not answer: {fault}")),
    };
    let account = match token_review::judge_review(response.status, &response.body, audiences) {
        ClusterAnswer::Granted(account) => account,
        ClusterAnswer::Refused(why) => return refused(&why),
        ClusterAnswer::Unavailable(why) => return Answer::Unavailable(why.to_string()),
    };
    let target = token_review::account_target(&account);
    let read = Request { method: "GET", target: &target, header, body: &[] };
    let response = match cluster.server.exchange(&read).await {
        Ok(response) => response,
        Err(fault) => return Answer::Unavailable(format!("the cluster does not answer: {fault}")),
    };
    match token_review::judge_account(response.status, &response.body, &account) {
        ClusterAnswer::Granted(attributes) => {
            Answer::Proven(Proof { account: account.to_string(), attributes, expires })
        }
        ClusterAnswer::Refused(why) => refused(&why),
        ClusterAnswer::Unavailable(why) => Answer::Unavailable(why.to_string()),
    }
}

fn read_bearer(path: &PathBuf) -> std::io::Result<Zeroizing<String>> {
    if std::fs::metadata(path)?.len() > BEARER_BYTES_MAX {
        return Err(std::io::ErrorKind::FileTooLarge.into());
    }
    let token = Zeroizing::new(std::fs::read_to_string(path)?);
    let token = token.trim();
    if token.is_empty() || token.bytes().any(|byte| !byte.is_ascii_graphic()) {
        return Err(std::io::Error::other("it is not a bearer token"));
    }
    Ok(Zeroizing::new(format!("Bearer {token}")))
}

fn unavailable(why: &str) -> Answer {
    Answer::Unavailable(why.to_owned())
}
