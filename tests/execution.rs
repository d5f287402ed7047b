//! The fold: recorded executions, the rules for errors, displays and the end, and that the bounds hold.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use sandkernel::execution::{DisplayKind, Event, Execution, Fold, Limits, MimeValue, ReplyStatus};
use sandkernel::protocol::{ChannelName, Frame, Message, Subprotocol};
use serde_json::{Value, json};

#[path = "recorded/mod.rs"]
mod recorded;

fn on(channel: ChannelName, msg_type: &str, content: &Value) -> Message {
    let message = json!({"channel": channel.as_str(), "header": {"msg_type": msg_type}, "content": content});
    Message::decode(Subprotocol::Json, &Frame::Text(message.to_string().into())).expect("it is well formed")
}

fn iopub(msg_type: &str, content: &Value) -> Message {
    on(ChannelName::Iopub, msg_type, content)
}

fn stream(name: &str, text: &str) -> Message {
    iopub("stream", &json!({"name": name, "text": text}))
}

fn shown(id: &str, text: &str) -> Message {
    let content = json!({"data": {"text/plain": text}, "metadata": {}, "transient": {"display_id": id}});
    iopub("display_data", &content)
}

fn idle() -> Message {
    iopub("status", &json!({"execution_state": "idle"}))
}

fn reply(content: &Value) -> Message {
    on(ChannelName::Shell, "execute_reply", content)
}

fn folded(limits: Limits, messages: &[Message]) -> (Execution, Vec<String>) {
    let mut fold = Fold::new(limits);
    let mut events = Vec::new();
    for message in messages {
        fold.push(message, &mut |event| {
            events.push(match event {
                Event::Output { stream, text } => format!("{} {text}", stream.as_str()),
                Event::Result(item) => format!("result {}", plain(item)),
                Event::UpdatedResult(item) => format!("updated {}", plain(item)),
                Event::Error(error) => format!("error {}", error.name),
                Event::ClearOutput { wait } => format!("clear {wait}"),
                Event::InputRequest { prompt, password, .. } => format!("input {prompt}{password}"),
                other => format!("{other:?}"),
            });
        });
    }
    (fold.finish(Duration::from_secs(1)), events)
}

fn execution(messages: &[Message]) -> Execution {
    folded(Limits::default(), messages).0
}

fn plain(item: &sandkernel::execution::DisplayItem) -> &str {
    item.data.get("text/plain").map_or("", MimeValue::as_str)
}

#[test]
fn recorded_executions_come_out_whole() {
    for subprotocol in [Subprotocol::V1, Subprotocol::Json] {
        let frames = recorded::frames(subprotocol);
        let messages = frames.iter().map(|frame| Message::decode(subprotocol, frame).unwrap());
        let (first, second): (Vec<_>, Vec<_>) = messages
            .filter(|message| message.parent_id.starts_with("request-"))
            .partition(|message| message.parent_id == "request-1");

        let (first, events) = folded(Limits::default(), &first);
        assert_eq!(first.stdout(), "one\nthree 😀\n");
        assert_eq!(first.stderr(), "zwei ü €\n");
        assert_eq!(first.logs(), "one\nzwei ü €\nthree 😀\n");
        assert!(first.complete && first.error.is_none());
        assert_eq!((first.execution_count, first.status), (Some(1), Some(ReplyStatus::Ok)));
        let results: Vec<_> = first.results.iter().map(plain).collect();
        let html = "<IPython.core.display.HTML object>";
        assert_eq!(results, [html, "json", "with buffers", "'Ada é'"]);
        assert_eq!(first.results[0].data.get("text/html").unwrap().as_str(), "<b>second</b>");
        let json = first.results[1].data.get("application/json").unwrap();
        assert!(matches!(json, MimeValue::Json(_)));
        assert_eq!(serde_json::from_str::<Value>(json.as_str()).unwrap(), json!({"a": [1, 2.5, null]}));
        assert_eq!(first.results[2].buffers, [&b"\0\x01\x02"[..], b"", b"\xff\xff\xff\xff\xff"]);
        assert_eq!(first.results[3].kind, DisplayKind::ExecuteResult);
        assert!(events.contains(&"input name? false".to_owned()), "{events:?}");
        assert!(events.contains(&"clear true".to_owned()), "{events:?}");

        let (second, events) = folded(Limits::default(), &second);
        let error = second.error.as_ref().unwrap();
        assert_eq!((error.name.as_str(), error.value.as_str()), ("ZeroDivisionError", "division by zero"));
        assert!(error.traceback.len() > 2 && !error.traceback.concat().contains('\u{1b}'));
        assert_eq!((second.stdout().as_ref(), second.status), ("before\n", Some(ReplyStatus::Error)));
        assert_eq!(events, ["stdout before\n", "error ZeroDivisionError"]);
    }
}

#[test]
fn an_execution_is_complete_with_reply_and_idle_in_any_order() {
    let [ok, error] =
        [json!({"status": "ok", "execution_count": 3}), json!({"status": "error", "ename": "E"})];
    for messages in [[idle(), reply(&ok)], [reply(&ok), idle()]] {
        let mut fold = Fold::new(Limits::default());
        fold.push(&messages[0], &mut |_| {});
        assert!(!fold.is_complete());
        fold.push(&messages[1], &mut |_| {});
        assert!(fold.is_complete() && fold.replied());
        // What comes a second time changes nothing.
        fold.push(&reply(&error), &mut |_| panic!("nothing is told"));
        fold.push(&idle(), &mut |_| panic!("nothing is told"));
        let execution = fold.finish(Duration::from_secs(2));
        assert!(execution.complete && execution.error.is_none());
        assert_eq!((execution.execution_count, execution.duration.as_secs()), (Some(3), 2));
    }
}

#[test]
fn messages_on_the_wrong_channel_change_nothing() {
    let content =
        json!({"status": "ok", "execution_state": "idle", "name": "stdout", "text": "x", "data": {}});
    let mut fold = Fold::new(Limits::default());
    for (channel, msg_type) in [
        (ChannelName::Iopub, "execute_reply"),
        (ChannelName::Control, "execute_reply"),
        (ChannelName::Shell, "status"),
        (ChannelName::Stdin, "stream"),
        (ChannelName::Shell, "execute_result"),
        (ChannelName::Iopub, "input_request"),
    ] {
        fold.push(&on(channel, msg_type, &content), &mut |_| panic!("nothing is told"));
        assert!(!fold.replied(), "{msg_type}");
    }
    let execution = fold.finish(Duration::ZERO);
    assert!(execution.results.is_empty() && execution.logs().is_empty() && !execution.complete);
}

#[test]
fn the_error_is_taken_once() {
    let told = |name: &str| json!({"status": "error", "ename": name, "evalue": "v", "traceback": []});
    for messages in [
        vec![iopub("error", &told("A")), reply(&told("B")), idle()],
        vec![reply(&told("A")), iopub("error", &told("B")), idle()],
        vec![reply(&told("A")), idle()],
        vec![iopub("error", &told("A"))],
    ] {
        let (execution, events) = folded(Limits::default(), &messages);
        assert_eq!(execution.error.unwrap().name, "A");
        assert_eq!(events, ["error A"]);
    }
    // The reply may overtake what was written before: it is told at the end.
    let messages = [reply(&told("A")), iopub("stream", &json!({"name": "stdout", "text": "x"})), idle()];
    assert_eq!(folded(Limits::default(), &messages).1, ["stdout x", "error A"]);
    let aborted = execution(&[reply(&json!({"status": "aborted"})), idle()]);
    assert_eq!(aborted.error.unwrap().name, "ExecutionAborted");
}

#[test]
fn an_update_replaces_what_was_displayed_under_its_id() {
    let update = iopub(
        "update_display_data",
        &json!({"data": {"text/plain": "new"}, "transient": {"display_id": "a"}}),
    );
    let unknown = iopub("update_display_data", &json!({"data": {"text/plain": "lost"}}));
    let messages = [shown("a", "1"), shown("b", "2"), shown("a", "3"), update, unknown];
    let (execution, events) = folded(Limits::default(), &messages);
    assert_eq!(execution.results.iter().map(plain).collect::<Vec<_>>(), ["new", "2", "new"]);
    assert_eq!(events[3..], ["updated new", "updated lost"]);
}

#[test]
fn too_much_output_keeps_head_and_tail_and_says_how_much_is_missing() {
    let limits = Limits { output_bytes: 1000, ..Limits::default() };
    let lines: Vec<_> = (0..1000).map(|number| stream("stdout", &format!("{number:09}\n"))).collect();
    let (execution, events) = folded(limits, &lines);
    let stdout = execution.stdout();
    assert!(stdout.starts_with("000000000\n000000001\n") && stdout.ends_with("000000999\n"));
    assert!(stdout.contains("000000049\n\n[… 9000 bytes left out …]\n000000950\n"), "{stdout}");
    assert_eq!((execution.omitted.stdout_bytes, execution.omitted.stderr_bytes), (9000, 0));
    assert_eq!((execution.stderr().as_ref(), execution.logs()), ("", stdout));
    assert_eq!(events.len(), 1000);
}

#[test]
fn what_was_written_to_one_stream_is_read_without_a_copy() {
    let lines = vec![stream("stdout", &"a line\n".repeat(1000)); 100];
    let (execution, _) = folded(Limits::default(), &lines);
    assert!(matches!(execution.stdout(), Cow::Borrowed(text) if text.len() == 700_000));
    assert!(matches!(execution.logs(), Cow::Borrowed(_)) && execution.stderr().is_empty());
}

#[test]
fn a_result_over_the_limit_is_counted_and_its_plain_text_kept_cut() {
    let limits = Limits { result_bytes: 100_000, ..Limits::default() };
    let large = json!({"data": {"image/png": "p".repeat(200_000), "text/plain": "é".repeat(90_000)}});
    let medium = json!({"data": {"text/plain": "m".repeat(60_000)}});
    let small = json!({"data": {"text/plain": "small"}});
    let messages: Vec<_> =
        [&medium, &large, &medium, &small].map(|content| iopub("execute_result", content)).into();
    let (execution, events) = folded(limits, &messages);
    assert_eq!(plain(&execution.results[0]).len(), 60_000);
    let cut = plain(&execution.results[1]);
    assert!(
        cut.starts_with("éé") && cut.ends_with(" bytes left out …]\n") && cut.len() < 40_000,
        "{}",
        cut.len()
    );
    assert!(execution.results[1].data.get("image/png").is_none());
    assert_eq!(execution.omitted.result_types, ["image/png", "text/plain"]);
    assert!(execution.omitted.results >= 2 && execution.omitted.result_bytes > 380_000);
    // The limit is on what is kept: each that is below it is told whole.
    assert_eq!(events[2].len(), "result ".len() + 60_000);
}

#[test]
fn an_error_finds_room_after_results_that_used_it_up() {
    let limits = Limits { result_bytes: 2_000, ..Limits::default() };
    let result = iopub("execute_result", &json!({"data": {"text/plain": "x".repeat(1_500)}}));
    let error = iopub("error", &json!({"ename": "E", "evalue": "v".repeat(10_000), "traceback": ["t"]}));
    let execution = folded(limits, &[result, error]).0;
    let error = execution.error.unwrap();
    assert_eq!((error.value.len(), error.omitted_bytes), (10_000, 0));
}

#[test]
fn values_too_deep_for_any_reader_are_left_out() {
    let deep = format!("{}{}", "[".repeat(1000), "]".repeat(1000));
    let message = format!(
        r#"{{"channel":"iopub","header":{{"msg_type":"display_data"}},"content":{{"data":{{"application/json":{deep},"text/plain":"kept"}}}}}}"#
    );
    let message = Message::decode(Subprotocol::Json, &Frame::Text(message.into())).unwrap();
    let execution = execution(&[message]);
    assert_eq!(execution.results[0].data.iter().len(), 1);
    assert_eq!(execution.results[0].omitted, [("application/json".to_owned(), 2000)]);
    assert_eq!(execution.omitted.result_types, ["application/json"]);
}

#[test]
fn small_attachments_do_not_keep_their_frame() {
    let mut message = shown("a", "x");
    let frame = Bytes::from(vec![7; 1_000_000]);
    message.buffers = vec![frame.slice(..10)];
    message.frame_bytes = frame.len();
    let execution = execution(&[message]);
    assert_eq!(execution.results[0].buffers, [Bytes::from_static(&[7; 10])]);
    assert!(frame.try_into_mut().is_ok(), "the frame is still referred to");
}

fn any_message() -> impl Strategy<Value = Message> {
    let text = prop_oneof!["[a-zé😀\u{1b}\\[m\n]{0,30}", "[x-z]{200,300}"];
    let id = prop::sample::select(vec!["a", "b", "c"]);
    (0..11_u8, text, id).prop_map(|(kind, text, id)| match kind {
        0..=2 => stream("stdout", &text),
        3 | 4 => stream("stderr", &text),
        5 => shown(id, &text),
        6 => iopub(
            "update_display_data",
            &json!({"data": {"text/html": text}, "transient": {"display_id": id}}),
        ),
        7 => iopub("execute_result", &json!({"data": {"text/plain": text, "application/json": [text]}})),
        8 => iopub("error", &json!({"ename": text, "evalue": text, "traceback": [text]})),
        9 => idle(),
        _ => reply(&json!({"status": "error", "ename": id, "evalue": text})),
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn nothing_is_lost_within_the_limits(messages in prop::collection::vec(any_message(), 0..40)) {
        let (execution, events) = folded(Limits::default(), &messages);
        let told = |prefix: &str| {
            let texts = events.iter().filter_map(|event| event.strip_prefix(prefix));
            texts.collect::<String>()
        };
        prop_assert_eq!(execution.stdout(), told("stdout "));
        prop_assert_eq!(execution.stderr(), told("stderr "));
        prop_assert_eq!(execution.logs().len(), execution.stdout().len() + execution.stderr().len());
        prop_assert_eq!(execution.results.len(), events.iter().filter(|event| event.starts_with("result ")).count());
        prop_assert_eq!(&execution.omitted, &sandkernel::execution::Omitted::default());
    }

    #[test]
    fn what_is_kept_is_bounded_and_the_rest_is_counted(
        messages in prop::collection::vec(any_message(), 0..60),
        output_bytes in 0..400_usize,
        result_bytes in 0..4000_usize,
    ) {
        let whole = execution(&messages);
        let kept = folded(Limits { output_bytes, result_bytes }, &messages).0;
        for (whole, kept, omitted) in [
            (whole.stdout(), kept.stdout(), kept.omitted.stdout_bytes),
            (whole.stderr(), kept.stderr(), kept.omitted.stderr_bytes),
        ] {
            let marker = format!("\n[… {omitted} bytes left out …]\n");
            if omitted == 0 {
                prop_assert_eq!(whole, kept);
                continue;
            }
            let (head, tail) = kept.split_once(&marker).unwrap();
            prop_assert!(whole.starts_with(head) && whole.ends_with(tail));
            prop_assert_eq!((head.len() + tail.len()) as u64 + omitted, whole.len() as u64);
            prop_assert!(head.len() + tail.len() <= output_bytes);
        }
        let data = kept.results.iter().flat_map(|item| item.data.iter());
        let size: usize = data.map(|(mime_type, value)| mime_type.len() + value.as_str().len()).sum();
        prop_assert!(size <= result_bytes, "{size} of {result_bytes}");
        prop_assert_eq!(kept.complete, whole.complete);
        prop_assert_eq!(kept.error.is_some(), whole.error.is_some());
    }
}

#[test]
fn what_is_cleared_is_kept_and_not_on_the_screen() {
    let stream = |text: &str| iopub("stream", &json!({"name": "stdout", "text": text}));
    let display = |text: &str| iopub("display_data", &json!({"data": {"text/plain": text}, "metadata": {}}));
    let clear = |wait: bool| iopub("clear_output", &json!({"wait": wait}));
    let told = execution(&[stream("old"), display("gone"), clear(false), stream("new"), display("left")]);
    assert_eq!((told.logs().as_ref(), told.screen().as_str()), ("oldnew", "new"));
    assert_eq!((told.results.len(), told.cleared.results), (2, 1));
    // Waiting, it is the next output that clears: without one, nothing is cleared.
    let waiting = execution(&[stream("stays"), clear(true)]);
    assert_eq!(waiting.screen(), "stays");
    let waited = execution(&[stream("0"), clear(true), stream("1"), clear(true), stream("2")]);
    assert_eq!((waited.logs().as_ref(), waited.screen().as_str()), ("012", "2"));
    // Where the middle is not kept, what is left of it after the clearing is counted.
    let limits = Limits { output_bytes: 8, ..Limits::default() };
    let (cut, _) = folded(limits, &[stream("abcd"), stream("efghij"), clear(false), stream("klmnop")]);
    assert_eq!(cut.screen(), "\n[… 2 bytes left out …]\nmnop");
}

#[test]
fn code_that_was_interrupted_is_told_from_code_that_was_not_run() {
    // A kernel of bash gives the status of a request that it did not run.
    let input = || iopub("execute_input", &json!({"code": "sleep 60", "execution_count": 1}));
    for status in ["abort", "aborted"] {
        let aborted = || reply(&json!({"status": status}));
        for messages in [
            [input(), stream("stdout", "x"), aborted(), idle()],
            // The reply may overtake what was published.
            [aborted(), input(), stream("stderr", "^C"), idle()],
        ] {
            let (told, events) = folded(Limits::default(), &messages);
            assert_eq!(told.error.unwrap().name, "ExecutionInterrupted");
            assert_eq!(events.last().unwrap(), "error ExecutionInterrupted");
        }
        // Silent code is not announced; what was run has a number all the same.
        let numbered = reply(&json!({"status": status, "execution_count": 1}));
        let (told, _) = folded(Limits::default(), &[numbered, idle()]);
        assert_eq!(told.error.unwrap().name, "ExecutionInterrupted");
        let (told, events) = folded(Limits::default(), &[aborted(), idle()]);
        assert_eq!((told.error.unwrap().name.as_str(), events.len()), ("ExecutionAborted", 1));
    }
}
