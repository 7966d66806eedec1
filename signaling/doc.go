// Package signaling introduces agents to each other: a server that relays
// signed envelopes between registered agents, a client that is registered with
// several servers at once, and the format of both.
//
// A server can delay and drop what it relays. It cannot read more than who
// talks to whom, invent or change an envelope, or take an agent's place: agents
// sign envelopes for each other and verify them under keys that their own trust
// policy holds.
//
// A client can ask only for what concerns itself: the server takes envelopes
// from an agent under its own name, key, mesh and instance and nobody else's,
// bounds what each connection may send and leave unread, and lets nobody keep the
// owner of a key from its name. A hostile server gains nothing from the
// registrations it sees: each is signed for the server that the client dialled.
//
// # Protocol
//
// Messages are binary WebSocket messages (RFC 6455), each one CBOR array in
// core deterministic encoding (RFC 8949 §4.2.1): what is not byte for byte the
// one encoding of its value is refused, as are tags, indefinite lengths and
// trailing bytes. The first element is the protocol version, 1, the second the
// message type. In the table bstr N is a byte string of N bytes.
//
//	type       sent by  elements after version and type
//	1 challenge server  nonce bstr 32
//	2 register  client  mesh tstr, agent tstr, key bstr 32, instance bstr 16,
//	                    server tstr, yield uint (0 or 1), signature bstr 64
//	3 welcome   server  max envelope uint (bytes), idle uint (milliseconds),
//	                    rate uint (envelopes per second), burst uint (envelopes),
//	                    time uint
//	4 envelope  both    envelope bstr
//	5 presence  server  change uint (1 joined, 2 left),
//	                    array of [agent tstr, key bstr 32], 1 to 128 of them
//	6 notice    server  code uint, text tstr, ref bstr 0 or 32, time uint
//
// A connection goes
//
//	server                              client
//	challenge           ──────────▶
//	                    ◀──────────     register
//	welcome | notice    ──────────▶
//	presence (snapshot) ──────────▶
//	envelope, presence, notice ◀──▶     envelope
//
// The signature in register is over [keys.Statement]{Domain: "agentmesh/v1
// register", Mesh: mesh, From: agent, To: server, Body: nonce ‖ instance ‖ yield},
// by key, with yield as one byte. Server is the host of the URL that the client
// dialled: a name in lower case and ASCII (RFC 5891) without a final dot, or an
// address as in RFC 5952 without a zone, and the port unless it is 80 or 443. It
// stops a forwarded challenge: a server that passes another server's challenge on to
// its own clients gets signatures that name itself, and the other server refuses them.
// A server therefore has to know its names, and never takes them from a request.
//
// Among connections of one agent and key the newest is registered. The one before it
// is told replaced if its instance is another, and duplicate if it is the same. A
// client that was replaced comes back from time to time with yield 1, which never
// replaces another instance: it is told replaced again while there is one.
//
// Time is the server's clock in milliseconds since 1970, UTC. A client compares it
// with its own, and warns when they are apart.
//
// Presence is a hint. After welcome the client learns of at most
// [MaxPresenceSnapshot] agents of its mesh, then of changes.
//
// A notice is about an envelope if ref is not empty (it is then the SHA-256 of
// the envelope) and about the connection otherwise; its codes are the [Code]
// constants. After replaced, duplicate, refused, unavailable, wrong server, version,
// protocol and draining the server closes the connection.
//
// The client sends a WebSocket ping every 20 seconds; a server closes a
// connection from which nothing came for the time that its welcome named.
//
// # Envelope
//
// An envelope is what one agent signs for another, whichever way it travels:
//
//	envelope = [1, payload bstr, signature bstr 64]
//	payload  = [kind uint, mesh tstr, from tstr, to tstr, key bstr 32,
//	            to-key bstr 0 or 32, instance bstr 16, generation uint,
//	            nonce bstr 16, time uint, ref bstr 0 or 32, body bstr]
//
// Both are deterministic as above; payload stands inside a byte string so that
// what was signed can be verified without encoding it again. Kind is 1 offer, 2
// answer, 3 candidate, 4 reject or 5 ask. Key is the author's; an empty to-key means
// whoever is registered under the name. Time is in milliseconds since 1970,
// UTC. Ref is empty in an offer and an ask, and otherwise the SHA-256 of the
// envelope of the offer or ask. Nonce is random. The signature is over
// [keys.Statement]{Domain: "agentmesh/v1 " + kind, Mesh: mesh, From: from, To:
// to, Body: payload}. An envelope is at most [MaxEnvelope] bytes long.
package signaling
