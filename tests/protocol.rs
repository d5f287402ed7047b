//! The codec: what a real gateway sends, what a hostile one may, and that requests survive the way there.

use bytes::Bytes;
use proptest::prelude::*;
use sandkernel::Error;
use sandkernel::protocol::{
    ChannelName, Content, ErrorContent, ExecuteRequest, ExecutionState, Frame, Message, ReplyStatus,
    StreamName, Subprotocol, V1_NAME, encode_request,
};

#[path = "recorded/mod.rs"]
mod recorded;

const BOTH: [Subprotocol; 2] = [Subprotocol::V1, Subprotocol::Json];

/// A message in a frame of the v1 subprotocol, its parts given as they lie on the wire.
fn v1(parts: &[&[u8]]) -> Frame {
    let mut offset = 8 * (2 + parts.len());
    let mut frame = (parts.len() as u64 + 1).to_le_bytes().to_vec();
    frame.extend((offset as u64).to_le_bytes());
    for part in parts {
        offset += part.len();
        frame.extend((offset as u64).to_le_bytes());
    }
    frame.extend(parts.concat());
    Frame::Binary(frame.into())
}

fn message(msg_type: &str, content: impl AsRef<[u8]>) -> Message {
    let header = format!(r#"{{"msg_id":"m","msg_type":"{msg_type}","session":"s"}}"#);
    let parts: [&[u8]; 5] = [b"iopub", header.as_bytes(), br#"{"msg_id":"p"}"#, b"{}", content.as_ref()];
    Message::decode(Subprotocol::V1, &v1(&parts)).expect("it is well formed")
}

fn assert_protocol_error(subprotocol: Subprotocol, frame: impl Into<Bytes>) {
    let error = Message::decode(subprotocol, &Frame::Binary(frame.into())).expect_err("it is no message");
    assert!(matches!(error, Error::Protocol(_)), "{error:?}");
}

#[test]
fn the_subprotocol_is_the_one_the_server_chose() {
    assert_eq!(Subprotocol::negotiated(Some(V1_NAME)), Subprotocol::V1);
    assert_eq!(Subprotocol::negotiated(Some("")), Subprotocol::Json);
    assert_eq!(Subprotocol::negotiated(None), Subprotocol::Json);
}

#[test]
fn recorded_frames_decode_alike_in_both_subprotocols() {
    let [v1, json] = BOTH.map(|subprotocol| {
        let frames = recorded::frames(subprotocol);
        let messages = frames.iter().map(|frame| Message::decode(subprotocol, frame).unwrap());
        let ours = messages.filter(|message| message.parent_id.starts_with("request-"));
        // In order within each channel; between channels the order was the chance of the moment.
        let mut ours: Vec<_> = ours.collect();
        ours.sort_by_key(|message| message.channel.as_str());
        ours
    });
    assert_eq!(v1.len(), json.len());
    for (v1, json) in v1.iter().zip(&json) {
        assert_eq!((v1.channel, &v1.header.msg_type), (json.channel, &json.header.msg_type));
        assert!(!v1.header.msg_id.is_empty() && !v1.header.session.is_empty());
        assert_eq!(v1.buffers, json.buffers);
        // Elsewhere the escapes of the raw JSON, and the ids, differ.
        if let (Content::Stream { .. }, content) = (Content::decode(v1), Content::decode(json)) {
            assert_eq!(Content::decode(v1), content);
        }
    }
    let with_buffers: Vec<_> = v1.iter().filter(|message| !message.buffers.is_empty()).collect();
    assert_eq!(with_buffers.len(), 1);
    assert_eq!(with_buffers[0].buffers, [&b"\0\x01\x02"[..], b"", b"\xff\xff\xff\xff\xff"]);
}

#[test]
fn odd_fields_are_lost_and_the_message_is_not() {
    let stream = |content: &[u8], name, text: &str| {
        let message = message("stream", content);
        let expected = Content::Stream { name, text: text.into() };
        assert_eq!(Content::decode(&message), expected, "{:?}", String::from_utf8_lossy(content));
    };
    stream(
        br#"{"name":"stderr","text":"a\ud800b \ud83d\ude00 \udc00"}"#,
        StreamName::Stderr,
        "a\u{fffd}b 😀 \u{fffd}",
    );
    stream(
        br#"{"name":"stderr","text":"\\ud800 \ud800\ud83d\ude00"}"#,
        StreamName::Stderr,
        "\\ud800 \u{fffd}😀",
    );
    stream(b"{\"name\":\"stderr\",\"text\":\"a\xff\xedb\"}", StreamName::Stderr, "a\u{fffd}\u{fffd}b");
    stream(br#"{"name":"stderr","text":null}"#, StreamName::Stderr, "");
    stream(br#"{"name":7,"text":"a"}"#, StreamName::Stdout, "a");
    stream(br#"{"text":"a","text":"b","odd":NaN,"more":[-Infinity,"NaN"]}"#, StreamName::Stdout, "b");
    stream(br#"{"name":"stdlog","text":"a"}"#, StreamName::Stdout, "a");
    stream(b"[]", StreamName::Stdout, "");
    stream(b"", StreamName::Stdout, "");
    stream(b"{\"text\":\"cut", StreamName::Stdout, "");

    let decoded = |msg_type, content: &str| {
        let message = message(msg_type, content);
        match Content::decode(&message) {
            Content::Error(error) => error,
            other => panic!("{other:?}"),
        }
    };
    let error = |ename: &str, evalue: &str, traceback: &[&str]| ErrorContent {
        ename: ename.to_owned(),
        evalue: evalue.to_owned(),
        traceback: traceback.iter().map(ToString::to_string).collect(),
        omitted_lines: 0,
    };
    let content = r#"{"ename":"E","evalue":{},"traceback":["a",1,null,"\udc80","b"]}"#;
    assert_eq!(decoded("error", content), error("E", "", &["a", "\u{fffd}", "b"]));
    assert_eq!(decoded("error", r#"{"evalue":"v","traceback":"one"}"#), error("", "v", &["one"]));
    assert_eq!(decoded("error", r#"{"traceback":{"a":1}}"#), error("", "", &[]));

    let status = message("status", r#"{"execution_state":["idle"]}"#);
    assert_eq!(Content::decode(&status), Content::Status { execution_state: ExecutionState::Other });
    let reply = message("execute_reply", r#"{"status":"aborted","execution_count":-1}"#);
    let expected = Content::ExecuteReply {
        status: ReplyStatus::Aborted,
        execution_count: None,
        error: ErrorContent::default(),
    };
    assert_eq!(Content::decode(&reply), expected);
    assert_eq!(Content::decode(&message("comm_open", "{}")), Content::Other);
    let told = [
        (r#"{"implementation":"i","language_info":{"name":"bash"}}"#.to_owned(), "bash".to_owned()),
        (r#"{"language_info":{"name":" ba\u001b[31m\nsh"}}"#.to_owned(), "ba[31msh".to_owned()),
        (format!("{{\"language_info\":{{\"name\":\"{}\"}}}}", "é".repeat(10_000)), "é".repeat(64)),
        (r#"{"language_info":{"name":7}}"#.to_owned(), String::new()),
        (r#"{"language_info":"bash"}"#.to_owned(), String::new()),
        ("[".to_owned(), String::new()),
    ];
    for (content, name) in told {
        let message = message("kernel_info_reply", &content);
        let Content::KernelInfoReply { language, .. } = Content::decode(&message) else {
            panic!("{content}")
        };
        assert_eq!(language, name, "{content}");
    }
}

#[test]
fn a_display_keeps_its_order_and_its_raw_values() {
    let content = r#"{"data":{"text/plain":"p","application/json":{"b":[1, 2]},"text/html":"h"},
        "metadata":{"a":1},"transient":{"display_id":"d"}}"#;
    let message = message("display_data", content);
    let Content::DisplayData(display) = Content::decode(&message) else { panic!() };
    let data: Vec<_> = display.data.iter().map(|(mime, json)| (mime.as_str(), json.as_ref())).collect();
    let expected: [(&str, &[u8]); 3] =
        [("text/plain", b"\"p\""), ("application/json", br#"{"b":[1, 2]}"#), ("text/html", b"\"h\"")];
    assert_eq!(data, expected);
    assert_eq!(display.metadata, r#"{"a":1}"#);
    assert_eq!(display.display_id.as_deref(), Some("d"));
}

#[test]
fn deep_nesting_and_long_lists_neither_overflow_nor_are_kept() {
    let deep = format!(r#"{{"text":"a","odd":{}{}}}"#, "[".repeat(1_000_000), "]".repeat(1_000_000));
    let deep = message("stream", deep);
    assert_eq!(Content::decode(&deep), Content::Stream { name: StreamName::Stdout, text: "a".into() });
    let long = format!(r#"{{"traceback":["first"{},"last"]}}"#, r#","""#.repeat(100_000));
    let long = message("error", long);
    let Content::Error(error) = Content::decode(&long) else { panic!() };
    assert_eq!(error.traceback.len() + error.omitted_lines, 100_002);
    assert!(error.traceback.len() <= 1024);
    assert_eq!(error.traceback.first().map(String::as_str), Some("first"));
    assert_eq!(error.traceback.last().map(String::as_str), Some("last"));
}

#[test]
fn headers_are_read_leniently() {
    let decode = |header: &[u8], parent: &[u8]| {
        Message::decode(Subprotocol::V1, &v1(&[b"shell", header, parent, b"{}", b"{}"])).unwrap()
    };
    let odd = decode(br#"{"msg_id":"\u00e9\ud800","msg_type":5,"extra":[[]]}"#, b"null");
    assert_eq!((&*odd.header.msg_id, &*odd.header.msg_type, &*odd.header.session), ("é\u{fffd}", "", ""));
    assert_eq!(odd.parent_id, "");
    let usual = decode(br#"{"session":"s","msg_id":"m","msg_type":"status"}"#, br#"{"msg_id":"\u0070"}"#);
    assert_eq!((&*usual.header.msg_id, &*usual.header.msg_type, &*usual.parent_id), ("m", "status", "p"));
}

#[test]
fn frames_with_fewer_parts_decode_as_far_as_they_go() {
    let few = Message::decode(Subprotocol::V1, &v1(&[b"iopub", br#"{"msg_type":"status"}"#])).unwrap();
    assert_eq!((&*few.header.msg_type, few.content.len(), few.buffers.len()), ("status", 0, 0));
    let text = Frame::Text(r#"{"channel":"iopub","header":{"msg_type":"status"}}"#.into());
    for subprotocol in BOTH {
        assert_eq!(Message::decode(subprotocol, &text).unwrap().header.msg_type, "status");
    }
}

#[test]
fn frames_that_are_no_messages_are_refused() {
    for length in 0..16 {
        assert_protocol_error(Subprotocol::V1, vec![0; length]);
        assert_protocol_error(Subprotocol::V1, vec![0xff; length]);
        assert_protocol_error(Subprotocol::Json, vec![0; length]);
        assert_protocol_error(Subprotocol::Json, vec![0xff; length]);
    }
    let header: &[u8] = br#"{"msg_type":"status"}"#;
    let long = "x".repeat(1_000_000);
    for channel in [&b"hacked"[..], b"", b"\xff", long.as_bytes()] {
        let error = Message::decode(Subprotocol::V1, &v1(&[channel, header])).unwrap_err().to_string();
        assert!(error.len() < 300, "{error}");
    }
    let numbers =
        |numbers: &[u64]| numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<_>>();
    // Descending, beyond the end, within the offsets themselves, more than are there, absurdly many.
    for offsets in
        [&[3, 32, 40, 36][..], &[2, 24, 1 << 40], &[2, 24, u64::MAX], &[3, 8, 16, 24], &[9, 80, 80]]
    {
        assert_protocol_error(Subprotocol::V1, numbers(offsets));
    }
    assert_protocol_error(Subprotocol::V1, [numbers(&[70_000]), vec![0; 8 * 70_000]].concat());
    for text in ["", "[]", "{}", "<html>", r#"{"channel":"iopub"}"#, r#"{"header":{}}"#, "{\"header\""] {
        let error = Message::decode(Subprotocol::Json, &Frame::Text(text.into())).unwrap_err();
        assert!(matches!(error, Error::Protocol(_)), "{error:?}");
    }
}

#[test]
fn the_content_of_an_execute_request_is_the_protocols() {
    let content = ExecuteRequest { allow_stdin: true, ..ExecuteRequest::new("1 + 1") };
    for subprotocol in BOTH {
        let frame =
            encode_request(subprotocol, ChannelName::Shell, "execute_request", "m", "s", &content, &[])
                .unwrap();
        let message = Message::decode(subprotocol, &frame).unwrap();
        assert_eq!((message.channel, &*message.parent_id), (ChannelName::Shell, ""));
        let expected = r#"{"code":"1 + 1","silent":false,"store_history":true,"allow_stdin":true,"stop_on_error":false}"#;
        assert_eq!(message.content, expected);
    }
}

#[test]
fn what_does_not_serialize_is_a_payload_error() {
    let content = std::collections::HashMap::from([((1, 2), 3)]);
    let error =
        encode_request(Subprotocol::V1, ChannelName::Shell, "x", "m", "s", &content, &[]).unwrap_err();
    assert!(matches!(error, Error::Payload(_)), "{error:?}");
}

fn channels() -> impl Strategy<Value = ChannelName> {
    use ChannelName::{Control, Iopub, Shell, Stdin};
    prop::sample::select(vec![Shell, Control, Iopub, Stdin])
}

fn msg_types() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "stream",
        "display_data",
        "update_display_data",
        "execute_result",
        "error",
        "execute_reply",
        "status",
        "clear_output",
        "input_request",
        "execute_input",
        "",
    ])
}

proptest! {
    #[test]
    fn requests_come_out_as_they_went_in(
        channel in channels(), msg_type in ".*", msg_id in ".*", session in ".*", code in ".*",
        buffers in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..5),
    ) {
        let buffers: Vec<Bytes> = buffers.into_iter().map(Bytes::from).collect();
        for subprotocol in BOTH {
            let content = ExecuteRequest::new(&code);
            let frame = encode_request(subprotocol, channel, &msg_type, &msg_id, &session, &content, &buffers);
            let message = Message::decode(subprotocol, &frame.unwrap()).unwrap();
            prop_assert_eq!(message.channel, channel);
            prop_assert_eq!(&*message.header.msg_type, &msg_type);
            prop_assert_eq!(&*message.header.msg_id, &msg_id);
            prop_assert_eq!(&*message.header.session, &session);
            prop_assert_eq!(&message.buffers, &buffers);
            let content: serde_json::Value = serde_json::from_slice(&message.content).unwrap();
            prop_assert_eq!(&content["code"], &serde_json::Value::from(code.clone()));
        }
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        for subprotocol in BOTH {
            for frame in [Frame::Text(bytes.clone().into()), Frame::Binary(bytes.clone().into())] {
                let _ = Message::decode(subprotocol, &frame);
            }
        }
    }

    #[test]
    fn no_offsets_make_the_decoder_panic(
        numbers in prop::collection::vec(prop_oneof![0..200_u64, any::<u64>()], 1..12),
        rest in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let v1: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).chain(rest.clone()).collect();
        let _ = Message::decode(Subprotocol::V1, &Frame::Binary(v1.into()));
        let numbers = numbers.iter().flat_map(|number| u32::try_from(*number).unwrap_or(u32::MAX).to_be_bytes());
        let json: Vec<u8> = numbers.chain(rest).collect();
        let _ = Message::decode(Subprotocol::Json, &Frame::Binary(json.into()));
    }

    #[test]
    fn no_content_makes_the_decoder_panic(
        msg_type in msg_types(),
        content in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..200),
            r#"(\{"(name|text|data|traceback|status|transient)":)?["\[\]{}:,\\ud89abNI0-9nul-]{0,60}\}?"#
                .prop_map(String::into_bytes),
        ],
    ) {
        let _ = Content::decode(&message(msg_type, content));
    }

    #[test]
    fn python_escapes_decode_as_python_means_them(units in prop::collection::vec(any::<u16>(), 0..40)) {
        let escaped = units.iter().map(|unit| format!("\\u{unit:04x}")).collect::<Vec<_>>().concat();
        let message = message("stream", format!(r#"{{"name":"stdout","text":"{escaped}"}}"#));
        let text = String::from_utf16_lossy(&units);
        prop_assert_eq!(Content::decode(&message), Content::Stream { name: StreamName::Stdout, text: text.into() });
    }
}
