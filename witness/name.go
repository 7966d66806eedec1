package witness

// Name is the name of an event. Applications may record names of their own.
type Name string

// Events of a signaling server.
const (
	// SignalingServerStarted: a signaling server accepts connections.
	SignalingServerStarted Name = "signaling_server_started"
	// AgentRegistered: an agent proved its key and is registered.
	AgentRegistered Name = "agent_registered"
	// AgentDisconnected: a registered agent's connection ended.
	AgentDisconnected Name = "agent_disconnected"
	// SDPOfferRelayed: the server passed an offer on.
	SDPOfferRelayed Name = "sdp_offer_relayed"
	// SDPAnswerRelayed: the server passed an answer on.
	SDPAnswerRelayed Name = "sdp_answer_relayed"
	// ICECandidateRelayed: the server passed a candidate on.
	ICECandidateRelayed Name = "ice_candidate_relayed"
)

// Events of a signaling client.
const (
	// SignalingConnected: a server accepted the agent's registration.
	SignalingConnected Name = "signaling_connected"
	// SignalingConnectionLost: an open connection to a server ended.
	SignalingConnectionLost Name = "signaling_connection_lost"
	// SignalingConnectionFailed: an attempt to connect or register failed.
	SignalingConnectionFailed Name = "signaling_connection_failed"
	// SignalingFailover: another server became the first choice, because the
	// one before it was lost.
	SignalingFailover Name = "signaling_failover"
)

// Events of TURN servers, as an agent finds them.
const (
	// TURNServerHealthCheckSuccess: a server became healthy, for the first time
	// or again.
	TURNServerHealthCheckSuccess Name = "turn_server_health_check_success"
	// TURNServerMarkedUnhealthy: a server is not used while others are.
	TURNServerMarkedUnhealthy Name = "turn_server_marked_unhealthy"
	// TURNServerFailover: another server became the first choice, because the
	// one before it failed.
	TURNServerFailover Name = "turn_server_failover"
	// AllTURNServersUnhealthy: none of them is usable.
	AllTURNServersUnhealthy Name = "all_turn_servers_unhealthy"
)

// Events of a session between two agents.
const (
	// WebRTCOfferCreated: the agent signed and sent an offer.
	WebRTCOfferCreated Name = "webrtc_offer_created"
	// WebRTCAnswerCreated: the agent signed and sent an answer.
	WebRTCAnswerCreated Name = "webrtc_answer_created"
	// WebRTCAnswerReceived: a verified answer to the agent's offer arrived.
	WebRTCAnswerReceived Name = "webrtc_answer_received"
	// ICECandidateSent: the agent sent a candidate to its peer.
	ICECandidateSent Name = "ice_candidate_sent"
	// ConnectionStateChanged: a peer's state machine made a transition.
	ConnectionStateChanged Name = "connection_state_changed"
	// WebRTCSessionEstablished: both sides' hellos are verified.
	WebRTCSessionEstablished Name = "webrtc_session_established"
	// WebRTCCertValidated: the peer's DTLS certificate is the one its signed
	// envelope named, and its dates are valid.
	WebRTCCertValidated Name = "webrtc_cert_validated"
	// DataChannelOpen: the session's data channel opened.
	DataChannelOpen Name = "datachannel_open"
	// DataChannelClosed: the session's data channel closed.
	DataChannelClosed Name = "datachannel_closed"
	// DataChannelError: the session's data channel broke.
	DataChannelError Name = "datachannel_error"
	// PeerDisconnected: the association with a peer ended.
	PeerDisconnected Name = "peer_disconnected"
)

// Events of relays.
const (
	// TURNFallbackInitiated: no direct path to a peer was found in time, and the
	// relay may be used.
	TURNFallbackInitiated Name = "turn_fallback_initiated"
	// TURNFallbackSuccessful: a session over the relay came of that.
	TURNFallbackSuccessful Name = "turn_fallback_successful"
	// TURNConnectionDetected: a session that carries messages runs over a relay,
	// for whatever reason.
	TURNConnectionDetected Name = "turn_connection_detected"
)

// Events of a peer that is out of reach.
const (
	// MeshPartitionDetected: a peer has answered nothing for the partition
	// timeout.
	MeshPartitionDetected Name = "mesh_partition_detected"
	// MeshReconnectionScheduled: the next attempt to reach it has a time.
	MeshReconnectionScheduled Name = "mesh_reconnection_scheduled"
	// MeshHealingAttempt: an attempt to reach it begins.
	MeshHealingAttempt Name = "mesh_healing_attempt"
	// MeshPartitionHealed: it answers again.
	MeshPartitionHealed Name = "mesh_partition_healed"
	// PeerPermanentlyUnreachable: every attempt failed. A sign of the peer
	// makes it be tried again.
	PeerPermanentlyUnreachable Name = "peer_permanently_unreachable"
)

// Events of messages.
const (
	// IFMessageSent: a message was accepted for sending.
	IFMessageSent Name = "ifmessage_sent"
	// IFMessageReceived: a verified message was handed to the application.
	IFMessageReceived Name = "ifmessage_received"
	// IFMessageFailed: a message was not delivered, or its outcome is unknown.
	IFMessageFailed Name = "ifmessage_failed"
)

// Events of security.
const (
	// SignatureVerificationFailed: something came with a signature that does
	// not verify under the key it claims.
	SignatureVerificationFailed Name = "signature_verification_failed"
	// ReplayRejected: something genuine came a second time, or too late.
	ReplayRejected Name = "replay_rejected"
	// UnauthorizedConnectionAttempt: a key that no policy admits tried to
	// register or to connect.
	UnauthorizedConnectionAttempt Name = "unauthorized_connection_attempt"
)
