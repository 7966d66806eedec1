package mesh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/dtls/v3"
	"github.com/pion/ice/v4"
	"github.com/pion/interceptor"
	"github.com/pion/stun/v4"
	"github.com/pion/transport/v5"
	"github.com/pion/webrtc/v4"

	"github.com/infrafabric/agentmesh/keys"
)

// This is the only file that knows pion/webrtc.

// channelID is the fixed identifier of the one data channel. Both sides create
// it before any signaling, which saves a round trip and the race of data that
// arrives before its channel.
const channelID = 0

// ICE timing. A better kind of pair gets this long to succeed before a lesser
// one that already did is taken.
const (
	reflexiveWait = 20 * time.Millisecond
	// rtoLeast is the least of SCTP's longest retransmission timeout: a partition
	// that heals resumes within it. On a longer path it is more, see rtoMax.
	rtoLeast = 300 * time.Millisecond
	rtoMost  = 10 * time.Second
	// sackDelay is how long SCTP may keep an acknowledgement back (RFC 9260 §6.2).
	sackDelay = 200 * time.Millisecond
	// disconnectedAfter only marks a quiet path; nothing is closed by it.
	disconnectedAfter = 5 * time.Second
	keepAlive         = 2 * time.Second
	// checkInterval is pion's, between two checks of a pair.
	checkInterval = 200 * time.Millisecond
	// minCwnd keeps SCTP's congestion window from starting every burst at
	// one packet (bytes).
	minCwnd = 64 << 10
	// sctpReceive is SCTP's receive buffer in bytes: bandwidth times delay of
	// a fast, long path.
	sctpReceive = 4 << 20
)

// webrtcConnector makes connections with pion.
type webrtcConnector struct {
	settings webrtc.SettingEngine
	net      transport.Net
	cfg      webrtc.Configuration
	tcp      bool
	mux      ice.TCPMux // nil without a listener
	refused  *lastRefusal
}

// apiKind is what pion fixes for an API rather than for a connection.
type apiKind struct {
	relayWait time.Duration
	relayOnly bool
	loopback  bool
}

func newWebRTCConnector(cc connectorConfig) (*webrtcConnector, error) {
	var se webrtc.SettingEngine
	refused := &lastRefusal{}
	se.SetNet(gatherNet{bufferedNet{cc.net, refused}})
	se.LoggerFactory = pionLogs{cc.log}
	se.DetachDataChannels()
	se.EnableSctpSnap(true)
	se.SetSCTPMaxMessageSize(maxFrame)
	se.SetSCTPRTOMax(rtoLeast)
	se.SetSCTPMinCwnd(minCwnd)
	se.SetSCTPMaxReceiveBufferSize(sctpReceive)
	se.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
	networks := []webrtc.NetworkType{webrtc.NetworkTypeUDP4, webrtc.NetworkTypeUDP6}
	if cc.tcp || cc.listener != nil {
		networks = append(networks, webrtc.NetworkTypeTCP4, webrtc.NetworkTypeTCP6)
	}
	se.SetNetworkTypes(networks)
	var mux ice.TCPMux
	if cc.listener != nil {
		mux = ice.NewTCPMuxDefault(ice.TCPMuxParams{Listener: newLimitedListener(cc.listener, maxTCPConns),
			Logger: pionLogs{cc.log}.NewLogger("tcp"), ReadBufferSize: tcpReadQueue, WriteBufferSize: tcpWriteBuffer,
			FirstStunBindTimeout: attemptTimeout, AliveDurationForConnFromStun: attemptTimeout})
		se.SetICETCPMux(mux)
	}
	se.SetICETimeouts(disconnectedAfter, 0, keepAlive)
	// pion checks a pair seven times, 200 ms apart, and then never again: a network
	// that heals after that would be of no use to the attempt.
	se.SetICEMaxBindingRequests(uint16(attemptTimeout / checkInterval))
	se.SetSrflxAcceptanceMinWait(reflexiveWait)
	se.SetPrflxAcceptanceMinWait(reflexiveWait)
	// Without the extended master secret a session's keys are not bound to its
	// handshake (RFC 7627: triple handshake attack).
	se.SetDTLSExtendedMasterSecret(dtls.RequireExtendedMasterSecret)
	se.SetDTLSCipherSuites(
		dtls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
		dtls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
	)
	// The cookie exchange proves a source address (RFC 6347 §4.2.1). ICE has
	// proved it already, with a password from the signed envelope, before the
	// first DTLS packet is looked at; it would only cost a round trip.
	se.SetDTLSInsecureSkipHelloVerify(true)
	// The end of a connection is a goodbye, an SCTP abort or silence. Acting
	// on a DTLS close_notify as well closes pion's parts in two orders at once.
	se.DisableCloseByDTLS(true)

	cfg := webrtc.Configuration{BundlePolicy: webrtc.BundlePolicyMaxBundle}
	return &webrtcConnector{settings: se, net: cc.net, cfg: cfg, tcp: cc.tcp || cc.listener != nil, mux: mux, refused: refused}, nil
}

// rtoMax is SCTP's longest retransmission timeout on a path of that round trip. A
// shorter one sends everything twice.
func rtoMax(rtt time.Duration) time.Duration {
	return min(max(rtt+rtt/2+sackDelay, rtoLeast), rtoMost)
}

// setRTOMax sets it for an association that has not begun. pion reads it from the
// settings then, but hands them out to nobody: all it offers is to set them before
// there is a path, and before the round trip is known. Where it keeps them elsewhere
// nothing is set, and rtoLeast counts.
func setRTOMax(api *webrtc.API, d time.Duration) {
	f := reflect.ValueOf(api).Elem().FieldByName("settingEngine")
	if f.IsValid() && f.Type() == reflect.TypeFor[*webrtc.SettingEngine]() {
		(*webrtc.SettingEngine)(f.UnsafePointer()).SetSCTPRTOMax(d)
	}
}

// roundTrips are the shortest of the checks of a connection's pairs. pion keeps the last
// ones, and those may be long for no reason of the path: while a relay is asked for a
// permission, which may have to be repeated, nothing is sent and no answer is looked at.
type roundTrips struct {
	mu    sync.Mutex
	least map[pairAddrs]time.Duration
}

type pairAddrs struct{ local, remote netip.AddrPort }

// heard is called for each check of the other side: the last of this side's may have
// been answered. It switches no pair.
func (r *roundTrips) heard(_ *stun.Message, local, remote ice.Candidate, pair *ice.CandidatePair) bool {
	r.note(pairAddrs{addrPort(local.Address(), local.Port()), addrPort(remote.Address(), remote.Port())}, seconds(pair.CurrentRoundTripTime()))
	return false
}

// note takes the round trip of a pair's last check, zero before the first, and returns
// the shortest.
func (r *roundTrips) note(p pairAddrs, rtt time.Duration) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	was, ok := r.least[p]
	if rtt <= 0 || ok && was <= rtt {
		return was
	}
	if r.least == nil {
		r.least = map[pairAddrs]time.Duration{}
	}
	r.least[p] = rtt
	return rtt
}

// selected returns that of the pair that a connection has selected.
func (r *roundTrips) selected(t *webrtc.ICETransport) time.Duration {
	s, _ := t.GetSelectedCandidatePairStats()
	p, err := t.GetSelectedCandidatePair()
	if err != nil || p == nil {
		return seconds(s.CurrentRoundTripTime)
	}
	return r.note(pairAddrs{addrPort(p.Local.Address, int(p.Local.Port)), addrPort(p.Remote.Address, int(p.Remote.Port))}, seconds(s.CurrentRoundTripTime))
}

func addrPort(address string, port int) netip.AddrPort {
	a, _ := netip.ParseAddr(address)
	return netip.AddrPortFrom(a, uint16(port))
}

// newAPI makes the API of one connection; way is that to a relay, nil without one.
// connected is called when its path is there and before its association begins.
func (w *webrtcConnector) newAPI(k apiKind, way *relayWay, checks *roundTrips, connected func()) *webrtc.API {
	se := w.settings
	se.SetICEBindingRequestHandler(checks.heard)
	se.SetDTLSConnectContextMaker(func() (context.Context, func()) {
		ctx, cancel := context.WithTimeout(context.Background(), attemptTimeout)
		return ctx, func() {
			cancel()
			connected()
		}
	})
	se.SetIncludeLoopbackCandidate(k.loopback)
	se.SetRelayAcceptanceMinWait(k.relayWait)
	// A candidate of ours for the other side's TCP candidate would show where this
	// agent is.
	se.DisableActiveTCP(!w.tcp || k.relayOnly)
	if way != nil {
		se.SetNet(way)
		if way.dial != nil {
			se.SetICEProxyDialer(way)
		}
	}
	return webrtc.NewAPI(
		webrtc.WithSettingEngine(se),
		webrtc.WithMediaEngine(&webrtc.MediaEngine{}),
		webrtc.WithInterceptorRegistry(&interceptor.Registry{}),
	)
}

// Close ends what the connector itself has started; its connections are closed
// before.
func (w *webrtcConnector) Close() error {
	if w.mux == nil {
		return nil
	}
	return w.mux.Close()
}

func (w *webrtcConnector) New(cert *keys.Certificate, o connOptions) (conn, error) {
	loopback, link, err := nearOnly(w.net)
	if err != nil {
		return nil, fmt.Errorf("interfaces: %w", err)
	}
	cfg := w.cfg
	cfg.Certificates = []webrtc.Certificate{webrtc.CertificateFromX509(cert.PrivateKey, cert.Leaf)}
	way, err := newRelayWay(w.net, o.relay, o.relayAt)
	if err != nil {
		return nil, err
	}
	// pion gets addresses only: it looks names up without a context.
	if len(o.stun) > 0 {
		cfg.ICEServers = append(cfg.ICEServers, webrtc.ICEServer{URLs: o.stun})
	}
	if way != nil {
		way.refused = w.refused
		cfg.ICEServers = append(cfg.ICEServers, webrtc.ICEServer{
			URLs: []string{way.url}, Username: o.relay.Username, Credential: o.relay.Password})
	}
	if o.relayOnly {
		cfg.ICETransportPolicy = webrtc.ICETransportPolicyRelay
	}
	kind := apiKind{o.relayWait, o.relayOnly, loopback}
	var api *webrtc.API
	var pc *webrtc.PeerConnection
	checks := &roundTrips{}
	api = w.newAPI(kind, way, checks, func() {
		setRTOMax(api, rtoMax(checks.selected(pc.SCTP().Transport().ICETransport())))
	})
	pc, err = api.NewPeerConnection(cfg)
	if err != nil {
		return nil, fmt.Errorf("new connection: %w", err)
	}
	ordered, negotiated, id := true, true, uint16(channelID)
	ch, err := pc.CreateDataChannel("mesh", &webrtc.DataChannelInit{Ordered: &ordered, Negotiated: &negotiated, ID: &id})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("new data channel: %w", err), pc.GracefulClose())
	}
	c := &webrtcConn{
		pc:         pc,
		way:        way,
		began:      time.Now(),
		refused:    w.refused,
		tcp:        w.tcp,
		quiet:      make(chan struct{}),
		ch:         ch,
		low:        make(chan struct{}, 1),
		candidates: make(chan string, maxRemoteCandidates),
		local:      newLocalCandidates(),
		onLink:     link && !o.relayOnly,
		gathered:   make(chan struct{}),
		opened:     make(chan struct{}),
		done:       make(chan struct{}),
		over:       make(chan struct{}),
		closed:     make(chan struct{}),
	}
	ch.SetBufferedAmountLowThreshold(bufferLow)
	ch.OnBufferedAmountLow(func() {
		select {
		case c.low <- struct{}{}:
		default:
		}
	})
	ch.OnOpen(c.onOpen)
	pc.OnDataChannel(func(*webrtc.DataChannel) {
		c.offend(protocolErrorf("the other side opened a data channel that was not agreed"))
		// pion takes no further channel in while this call lasts, and holds a
		// few waiting at most.
		<-c.done
	})
	pc.SCTP().OnError(func(err error) {
		c.offend(protocolErrorf("data outside the data channel: %v", err))
	})
	pc.SCTP().OnClose(func(error) {
		c.overOnce.Do(func() { close(c.over) })
		c.finish()
	})
	pc.OnICECandidate(c.onCandidate)
	pc.OnConnectionStateChange(func(s webrtc.PeerConnectionState) {
		switch s {
		case webrtc.PeerConnectionStateDisconnected:
			c.quietOnce.Do(func() { close(c.quiet) })
		case webrtc.PeerConnectionStateFailed, webrtc.PeerConnectionStateClosed:
			c.finish()
		}
	})
	return c, nil
}

// webrtcConn is a conn over one PeerConnection with one data channel.
type webrtcConn struct {
	pc  *webrtc.PeerConnection
	ch  *webrtc.DataChannel
	way *relayWay // to the relay; nil for none

	began   time.Time
	refused *lastRefusal
	tcp     bool // a TCP candidate of the other side can be reached from any socket
	// onLink says that there are no addresses that lead further than a link.
	onLink bool
	low    chan struct{} // capacity 1: the queue fell to the low-water mark

	candidates chan string
	gathered   chan struct{}
	opened     chan struct{}
	done       chan struct{}
	finishOnce sync.Once
	quiet      chan struct{}
	quietOnce  sync.Once
	over       chan struct{} // closed when the other side ended the association
	overOnce   sync.Once
	broken     atomic.Bool           // a Read has failed
	offence    atomic.Pointer[error] // of the other side, that ends the connection
	closing    atomic.Bool
	closed     chan struct{} // closed when closeErr is final
	closeErr   error

	mu        sync.Mutex
	described bool             // the local description was handed out
	pending   []string         // candidates found before that
	local     *localCandidates // that the other side is told of
	gatherEnd bool

	raw interface { // set before opened is closed
		io.ReadWriter
		SetReadDeadline(time.Time) error
	}
}

func (c *webrtcConn) finish() { c.finishOnce.Do(func() { close(c.done) }) }

func (c *webrtcConn) onOpen() {
	raw, err := c.ch.DetachWithDeadline()
	if err != nil {
		c.finish()
		return
	}
	c.raw = raw
	c.way.settle()
	close(c.opened)
	if c.offence.Load() != nil {
		c.raw.SetReadDeadline(time.Now())
	}
}

// offend makes Read fail, so that the session ends: the other side has broken the
// rules where no frame is.
func (c *webrtcConn) offend(err error) {
	if !c.offence.CompareAndSwap(nil, &err) {
		return
	}
	select {
	case <-c.opened:
		c.raw.SetReadDeadline(time.Now())
	default: // onOpen will
	}
}

// onCandidate is called by pion from one goroutine at a time, with nil at the
// end.
func (c *webrtcConn) onCandidate(cand *webrtc.ICECandidate) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gatherEnd {
		return
	}
	if cand == nil {
		c.gatherEnd = true
		close(c.gathered)
		if c.described {
			close(c.candidates)
		}
		return
	}
	value := withoutRelated(cand.ToJSON().Candidate)
	if !c.described {
		c.pending = append(c.pending, value)
		return
	}
	c.trickle(value)
}

// trickle hands a candidate out that the other side is to be told of and was not.
func (c *webrtcConn) trickle(candidate string) {
	if tell, known := c.local.place(candidate); !tell || known {
		return
	}
	select {
	case c.candidates <- candidate:
	default:
	}
}

// describe waits a moment for candidates and returns the local description
// with those found; the others trickle.
func (c *webrtcConn) describe(ctx context.Context) (string, error) {
	wait := time.NewTimer(offerGatherWait)
	defer wait.Stop()
	select {
	case <-c.gathered:
	case <-wait.C:
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
	links := c.links()
	c.mu.Lock()
	defer c.mu.Unlock()
	d := c.pc.LocalDescription()
	if d == nil {
		return "", net.ErrClosed
	}
	c.described = true
	sdp := c.local.description(withoutRelated(d.SDP) + linkCandidates(links))
	if err := c.refused.since(c.began); err != nil && !c.tcp && c.gatherEnd && len(c.pending) == 0 && !strings.Contains(sdp, "a=candidate:") {
		close(c.candidates)
		return "", fmt.Errorf("no socket could be opened: %w", err)
	}
	for _, p := range c.pending {
		c.trickle(p)
	}
	c.pending = nil
	if c.gatherEnd {
		close(c.candidates)
	}
	return sdp, nil
}

// links are the sockets at IPv6 addresses of a link. pion has them and tells nobody
// (RFC 8445 §5.1.1.1), which is right where there are other addresses.
func (c *webrtcConn) links() (list []netip.AddrPort) {
	if !c.onLink {
		return nil
	}
	for _, s := range c.pc.GetStats() {
		if l, ok := s.(webrtc.ICECandidateStats); ok && l.Type == webrtc.StatsTypeLocalCandidate && l.Protocol == "udp" {
			if a, err := netip.ParseAddr(l.IP); err == nil && a.Is6() && a.IsLinkLocalUnicast() {
				list = append(list, netip.AddrPortFrom(a, uint16(l.Port)))
			}
		}
	}
	return list
}

func (c *webrtcConn) Offer(ctx context.Context) (string, error) {
	d, err := c.pc.CreateOffer(nil)
	if err != nil {
		return "", fmt.Errorf("create offer: %w", err)
	}
	if err := c.pc.SetLocalDescription(d); err != nil {
		return "", fmt.Errorf("set local offer: %w", err)
	}
	return c.describe(ctx)
}

func (c *webrtcConn) Answer(ctx context.Context, offer string) (string, error) {
	err := c.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: offer})
	if err != nil {
		return "", protocolErrorf("offer: %v", err)
	}
	c.way.heard(offer)
	d, err := c.pc.CreateAnswer(nil)
	if err != nil {
		return "", protocolErrorf("answer: %v", err)
	}
	if err := c.pc.SetLocalDescription(d); err != nil {
		return "", fmt.Errorf("set local answer: %w", err)
	}
	return c.describe(ctx)
}

func (c *webrtcConn) Accept(answer string) error {
	err := c.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: answer})
	if err != nil {
		return protocolErrorf("answer: %v", err)
	}
	c.way.heard(answer)
	return nil
}

func (c *webrtcConn) AddCandidate(candidate string) error {
	if err := c.pc.AddICECandidate(webrtc.ICECandidateInit{Candidate: candidate}); err != nil {
		return protocolErrorf("candidate: %v", err)
	}
	c.way.heard(candidate)
	return nil
}

func (c *webrtcConn) Candidates() <-chan string { return c.candidates }
func (c *webrtcConn) Opened() <-chan struct{}   { return c.opened }
func (c *webrtcConn) Done() <-chan struct{}     { return c.done }
func (c *webrtcConn) Quiet() <-chan struct{}    { return c.quiet }

func (c *webrtcConn) RemoteCertificate() []byte {
	return c.pc.SCTP().Transport().GetRemoteCertificate()
}

func (c *webrtcConn) Path() (local, remote string) {
	p, err := c.pc.SCTP().Transport().ICETransport().GetSelectedCandidatePair()
	if err != nil || p == nil {
		return "", ""
	}
	return p.Local.Typ.String(), p.Remote.Typ.String()
}

// Base knows the addresses of host candidates only: the sockets to STUN servers and
// relays are bound to none in particular.
func (c *webrtcConn) Base() netip.Addr {
	p, err := c.pc.SCTP().Transport().ICETransport().GetSelectedCandidatePair()
	if err != nil || p == nil || p.Local.Typ != webrtc.ICECandidateTypeHost {
		return netip.Addr{}
	}
	a, _ := netip.ParseAddr(p.Local.Address) // the zero Addr of what is none
	return a
}

func (c *webrtcConn) Read(b []byte) (int, error) {
	n, err := c.raw.Read(b)
	if err == nil {
		return n, nil
	}
	if offence := c.offence.Load(); offence != nil {
		return 0, *offence
	}
	c.broken.Store(true)
	return n, err
}

func (c *webrtcConn) Write(b []byte) error {
	_, err := c.raw.Write(b)
	return err
}

func (c *webrtcConn) Wait(ctx context.Context) error { return c.waitBelow(ctx, bufferHigh) }

func (c *webrtcConn) waitBelow(ctx context.Context, mark uint64) error {
	for c.ch.BufferedAmount() > mark {
		if ctx.Err() != nil {
			return context.Cause(ctx) // and leaves low to who waits
		}
		select {
		case <-c.low:
		case <-c.done:
			return net.ErrClosed
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

func (c *webrtcConn) Queued() uint64 { return c.ch.BufferedAmount() }

func (c *webrtcConn) Packets() (sent, received uint64) {
	s, _ := c.pc.SCTP().Transport().ICETransport().GetSelectedCandidatePairStats() // zeros of none
	return uint64(s.PacketsSent), uint64(s.PacketsReceived)
}

func (c *webrtcConn) Checks() (answered uint64, rtt time.Duration) {
	s, _ := c.pc.SCTP().Transport().ICETransport().GetSelectedCandidatePairStats() // zeros of none
	return s.ResponsesReceived, seconds(s.CurrentRoundTripTime)
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// Drain polls: pion calls back at the low-water mark only.
func (c *webrtcConn) Drain(ctx context.Context) error {
	t := time.NewTicker(5 * time.Millisecond)
	defer t.Stop()
	for c.ch.BufferedAmount() > 0 {
		select {
		case <-t.C:
		case <-c.done:
			return net.ErrClosed
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

func (c *webrtcConn) Close() error {
	if c.closing.CompareAndSwap(false, true) {
		if c.broken.Load() {
			// The other side ended the association: let pion's goroutines take
			// note before its locks are held for closing.
			t := time.NewTimer(linger)
			select {
			case <-c.over:
			case <-t.C:
			}
			t.Stop()
		}
		c.finish()
		// pion holds a lock while it aborts an association, and wants it to take
		// note of the other side's abort. Two ends that close at one instant wait
		// for each other's goroutines up to 200 ms, and where time is virtual for
		// ever: no two choose the same instant.
		t := time.NewTimer(1 + rand.N(closeSpread))
		<-t.C
		end := c.way.stop()
		c.closeErr = c.pc.GracefulClose()
		end()
		close(c.closed)
	}
	<-c.closed
	return c.closeErr
}
