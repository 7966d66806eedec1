// Package mesh connects software agents to each other: Dial an agent by name
// and get a [Peer], over which signed messages travel in order, without loss and
// without duplicates.
//
//	id, err := keys.LoadOrGenerate("agent-a.key", "agent-a")
//	trust, err := keys.NewDirectory(keys.DirectoryConfig{Path: "agents"})
//	node, err := mesh.Listen(ctx, mesh.Config{
//		Identity:  id,
//		Trust:     trust,
//		Signaling: []string{"wss://s1.example/", "wss://s2.example/"},
//	})
//	defer node.Close()
//	peer, err := node.Dial(ctx, "agent-b")
//	err = peer.Send(ctx, mesh.Message{Payload: json.RawMessage(`{"status":"up"}`)})
//	msg, err := peer.Receive(ctx)
//
// A [Node] is an agent's presence in one mesh. It registers with signaling
// servers, which introduce agents to each other and see nothing else; the agents
// then talk directly, over WebRTC data channels (ICE, DTLS, SCTP). A Peer is the
// lasting association between two agents; underneath, a session is one WebRTC
// connection, and a Peer moves from one to the next.
//
// # What is promised
//
// To the application of a process that lives, messages from one agent arrive
// once and in the order of Send, however often the connection under them is lost
// or replaced. Send returns when a message has its place in
// the send window; Flush returns when everything sent was delivered, that is
// handed to the other application: returned by Receive, or done with by the
// Handler. What is not known to be delivered when a Peer closes is reported by
// ID. A process that died may, when it is back, see again what it had not
// finished; [Message.ID] is the key to deduplicate on.
//
// Memory is bounded: Send blocks when the other side does not take what was
// sent. [DefaultWindow] and [Config.Window] say how much is kept; every other
// limit stands in limits.go.
//
// # Sessions come and go
//
// There is one way to recover from anything: a Peer makes a new session before it
// lets go of the present one, and goes on where it was. [Peer.Replace] does so on
// request, a change of the network does ([Config.NetworkChanged]), and so does
// doubt. The other side is in doubt when it has answered nothing for three
// seconds, or has acknowledged nothing for four round trips, at least half a second,
// while nothing of what waits moves either ([Recovery] has the figures): a new session is then tried by every route, and the
// old one is kept. Whichever works first is used, so that after a partition of
// seconds or hours traffic flows within a fraction of a second.
//
// After thirty seconds of silence the Peer takes it for a partition: ten attempts
// follow, after 1, 2, 4 … seconds, about seventeen minutes in all, and a sign of the
// other side or of the network ends a wait. Then the Peer is unreachable. It keeps what Send
// accepted, and connects again when its old session answers, when the other side
// comes to a signaling server or offers, when the network changes, or when the
// application dials. [Peer.Status] and [Peer.Changes] tell the [State], the [Reason]
// and the [Path] at each step; the log, the recorder and the instruments tell the
// same.
//
// Of two sides with a Peer the one with the greater key offers, and the other asks
// it to, so that a replacement that both want is one. Envelopes travel by the Peer
// itself while its session is sound, by the signaling servers, another one at each
// repetition, and by common neighbours: an agent passes envelopes on for a
// neighbour to a neighbour, one hop, and only those that the first has signed
// itself. So a mesh heals, and grows, with every signaling server down.
//
// A direct path is preferred. With [Config.TURN] first contact takes a relay after
// five seconds without one ([Paths]), a direct path that dies is replaced by the
// relay within a second or two, and from a relay a direct path is tried every now and
// then without disturbing anything.
//
// An agent that was restarted is the same Peer: its new process takes the place of
// the old one, and gets what that had not finished.
//
// # Paths and relays
//
// First contact takes a direct path when there is one; which NATs allow one (RFC 4787;
// the names are those of RFC 3489 §5), and how long it takes at a round trip of 50 ms
// with the default of Paths.RelayAfter, 5 s:
//
//	without a relay     full-cone           address-restricted  port-restricted     symmetric
//	full-cone           direct < 1 s        direct < 1 s        direct < 1 s        direct < 1 s
//	address-restricted  direct < 1 s        direct < 1 s        direct < 1 s        direct < 1 s
//	port-restricted     direct < 1 s        direct < 1 s        direct < 1 s        none
//	symmetric           direct < 1 s        direct < 1 s        none                none
//	with a relay        full-cone           address-restricted  port-restricted     symmetric
//	full-cone           direct < 1 s        direct < 1 s        direct < 1 s        direct < 1 s
//	address-restricted  direct < 1 s        direct < 1 s        direct < 1 s        direct < 1 s
//	port-restricted     direct < 1 s        direct < 1 s        direct < 1 s        relay < 6 s
//	symmetric           direct < 1 s        direct < 1 s        relay < 6 s         relay < 6 s
//
// Relays are TURN servers (RFC 8656), and [Config.TURN] knows them; [turn.Pool] probes
// and ranks them. A session uses one: the offer names its server, and the answer
// uses the same if it may. Its candidates are gathered from the start, so that the
// fallback costs no time but the wait for a direct path, and a session that replaces
// another waits at most 300 ms. A Peer on a relay tries the direct path again every now and
// then, and moves when it has one.
//
// A path counts when it carries full packets, of 1,253 bytes with the headers of IPv4: some
// tunnels lose those in silence and pass everything smaller. A session whose hello is not
// taken in within three seconds and some round trips, while the path's own checks are
// answered, ends with [ErrNarrowPath]. The next one goes by another kind of path, a relay or
// another way to one, and where there is none its frames travel in small packets
// ([Path].Narrow), at some cost of throughput; now and then, and when the network changes,
// full ones are tried again. A session that dies within ten seconds counts as an attempt
// that failed: a direct path is shunned for a while if there is a relay, and from the second in a
// row on the next one waits, a second first and each time four times as long, up to two
// minutes.
//
// A Peer on a relay also keeps a second session ready on the next best relay, as far as
// its connection; the agent with the greater key makes it. When the session in use falls silent,
// either side says hello on the second one, and traffic goes on within about a round trip of the
// doubt; a relay that dies costs some six tenths of a second. Without a second relay,
// or with Paths.StandbyAfter set to Never, a new session is made on another relay,
// which takes half a second more. To a relay by which a Peer did not get through it
// prefers others for half a minute, or until the pool sees it return. When every relay was gone, the return of
// one begins an attempt at once. A Peer stays on a relay that works: a better one
// that comes back is used for the standby, and by the next session. It leaves a relay that is
// taken out of the pool, and one whose credential is about to end when there is a new one.
//
// With [Paths.RelayOnly] no candidate but a relay's is made or sent, and the address from
// which the relay is reached is not told: nothing that the agent sends says where it is.
// Relays and signaling servers see from where they are reached; for the latter
// [Config.HTTPClient] may use a proxy.
//
// Where UDP is blocked, "turn:…?transport=tcp" and "turns:host:443" relays work over
// TCP and TLS; [Config.TCP] and [Config.TCPListener] make direct paths over TCP
// (RFC 6544); and [Config.HTTPClient] takes signaling through an HTTP proxy. [FilterNet]
// restricts interfaces, addresses and ports.
//
// # Who can do what
//
// The signaling server can delay and drop envelopes and sees who wants to talk
// to whom, and their network addresses. It cannot pose as an agent, read or
// change a message, or sit in the middle: offer and answer are signed by keys
// that each side's own trust policy holds, they name the DTLS certificates, and
// the first frame each way, the hello, signs both envelopes and both
// certificates together. Nothing is accepted before the other side's hello has
// been verified. A third agent that copies somebody's certificate fingerprint
// into an offer of its own gains nothing (RFC 8844): the hello is signed by the
// agent that it names.
//
// A trusted agent can send what it likes under its own name. It cannot speak for
// another, make this side keep more than a window, use one of its messages for
// another agent, mesh or place in the order, or state positions that were never
// sent: each ends the session as a protocol error. An agent that is not trusted
// any more loses its sessions; a second process with one identity ends the
// first, which learns why and does not fight.
//
// The README lists each promise with the tests that fail without it.
//
// A failure is charged to who delivered it, never to a name that was not
// verified, so that forged envelopes "from A" cannot keep A out.
//
// Trust is asked about each envelope, and about connected Peers when the policy
// announces a change and every 2 s otherwise; a Peer whose key is not trusted any
// more is closed. A key that trust does not know may be learned
// ([keys.FirstUse]), but only of an agent that was dialled, and only after its
// hello was verified.
//
// # Messages
//
// Every message is covered by an Ed25519 signature: the author signs a Merkle
// tree (RFC 6962 §2.1) of the messages that leave together, one or hundreds, and
// each message proves its place on its own. The signature is over
// [keys.Statement]{Domain: "agentmesh/v1 batch", Mesh: mesh, From: author, Body:
// instance ‖ tree size (4 bytes, big endian) ‖ root}. A leaf is a message's
// record, a CBOR array (RFC 8949, core deterministic encoding as everything
// below):
//
//	version tstr "2.1", flow uint 0, number uint, id tstr,
//	timestamp int (milliseconds since 1970), level int, destination tstr,
//	performative tstr, conversation tstr, citations [* tstr], trace ID tstr,
//	payload bstr (compact JSON), extra {* tstr => bstr (compact JSON)}
//
// The JSON form (IFMessage v2.1) is for people, files and HTTP; it maps one to
// one to the record, its field signature holds algorithm, public_key,
// signature_bytes, signed_fields (always the full list), mesh, instance,
// tree_size, index and path, and [Message.Verify] checks it years later.
//
// # Frames
//
// A frame is one binary message of data channel 0 (negotiated, ordered), at most
// 16 KiB: a CBOR array that begins with the version, 1, and the kind.
//
//	kind         elements after version and kind
//	0 hello      body bstr, signature bstr, padding bstr
//	1 batch      signature bstr, [+ record bstr], [* position]
//	2 part       total uint, offset uint, bytes bstr
//	3 positions  [* position]
//	4 skip       flow uint, number uint, offset uint
//	5 echo       ping uint, pong uint, held uint, sent uint, received uint
//	6 goodbye    code uint, text tstr
//	7 envelope   envelope bstr
//	8 piece      rest uint, bytes bstr, padding bstr
//
//	position  =  [flow uint, received uint, delivered uint, credit uint]
//
// A hello is the first frame each way and comes once. Padding, of any value, makes it at
// least 1,160 bytes long: so it fills a packet, and proves that the path carries such. Its body is
//
//	[version uint 1, from instance bstr 16, to instance bstr 16,
//	 offer hash bstr 32, answer hash bstr 32,
//	 own certificate bstr 32, certificate seen bstr 32 (SHA-256 of the DER),
//	 window uint, credit uint, state uint, [* position], relay tstr, [* ability tstr]]
//
// and its signature is over [keys.Statement]{Domain: "agentmesh/v1 hello", Mesh,
// From, To, Body}. Window is the author's: a record that counts for more bytes cannot
// travel to it. Credit is that of a flow that no position names, at most the window: an
// instance shares it with what former ones sent and nobody has taken yet.
// State names the memory that the positions come from: a flow that they do not
// name is one from which nothing had come if the state is that of the last
// hello, and one whose position was forgotten if it is another. Relay is the host of the
// TURN server whose candidate is the author's end of the path, "" for none.
//
// A batch that is too large for a frame travels in parts: pieces of the batch
// frame in order, other kinds possibly in between. An echo with a ping, the sender's
// clock in microseconds, is answered by one with that value as pong, which is a ping
// as well when one is due; zero is none of either. The greater key's answer to a ping
// that is an answer itself may wait for its next ping, and held says how many
// microseconds it did. Sent and received count the packets of the present path. Each side sends an echo at least once a second, and
// what proves that the other side is there is a pong, a position that acknowledges
// something, or, on a line that is full, bytes that move: a transport that hands over
// what waits in it, or long frames that come in. An envelope is the author's own, for the other side or to be passed on, or
// one that the other side passes on.
// A piece is a part of a frame of any kind, on a session in small packets, where nothing
// else travels: rest is how many bytes of the frame follow in others. It is 576 to 940
// bytes long, so that no packet of SCTP holds two.
// Goodbye codes are 0 closed, 1 replaced by a newer process of the same
// identity, 2 not trusted any more, 3 protocol error.
//
// # Flows
//
// Records of a flow are numbered 1, 2, 3 … per author instance (a Node) and
// recipient. A receiver states two positions, received (contiguous) and
// delivered, and its credit: how many bytes of records, each counted as its
// length + 64, may be sent in all. These are absolute and merged by maximum, so
// that a lost one costs nothing, and every hello repeats them: a new session
// resumes after the received position. A repeated record is dropped, a gap or a
// position beyond what was sent is a protocol error. Only a skip moves a
// receiver forward: to the first record a restarted receiver has to care about,
// or past records that their sender gave up and reported.
//
// # Envelopes
//
// Offers, answers, candidates and rejects are envelopes of package signaling;
// their bodies are CBOR arrays:
//
//	offer, answer  [SDP tstr, certificate bstr 32 (SHA-256), reason uint, relay tstr, avoid uint]
//	ask            [reason uint, avoid uint]
//	candidate      [[* candidate tstr]]
//	reject         [code uint (1 untrusted, 2 replaced, 3 busy, 4 clocks, 5 malformed, 6 unable, 7 closed),
//	                text tstr, theirs uint, ours uint]
//
// An SDP names the certificate of its envelope and no other. Envelopes are
// refused when their time is more than 5 minutes off, when their nonce was seen
// before (the same bytes by another way are dropped in silence), or when trust or
// signature fail; their generation, milliseconds since 1970 or one more than the
// last, orders the sessions of a pair, equal ones by the offerer's key. When both
// sides offer at once on first contact, the greater key's offer is answered. An ask
// wants an offer above its own generation; one that is there or under way will do.
// Reasons are the values of [Reason]; an unknown one counts as ReasonRequested. With
// ReasonDirectPath neither side uses a relay, and with ReasonStandby the connection
// opens and waits for a hello. Relay is the host of the TURN server that the author
// uses, "" for none. Avoid adds up what did the author no good lately: 1 the direct path,
// 2 full packets on it, 4 full packets at all; in an answer it is 4 or 0, and says
// whether this session is in small packets. A reject refers to an offer or an ask,
// and whoever takes an offer back rejects it itself. With the code clocks it holds the
// time of what it refers to and that of its author's clock, in milliseconds since 1970,
// and is believed whatever its own time is; otherwise both are 0. With the code closed it says that the
// Peer with which an offer or ask of any reason but 0 would go on was closed, of which a goodbye did not tell.
package mesh
