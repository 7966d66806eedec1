package virtual_test

import (
	"fmt"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pion/ice/v4"
	"github.com/pion/logging"
	"github.com/pion/webrtc/v4"

	"github.com/infrafabric/agentmesh/internal/virtual"
)

// TestPeerConnections: what two real WebRTC stacks make of the NATs, with the
// STUN server and without a relay, is what the table says.
func TestPeerConnections(t *testing.T) {
	for i, a := range nats {
		for _, b := range nats[i:] {
			t.Run(fmt.Sprintf("%v-%v", a, b), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					n := virtual.New(t, virtual.Config{RTT: 50 * time.Millisecond, STUN: true})
					if got, want := connects(t, n, a, b), canTalk(a, b); got != want {
						t.Errorf("connected: %v, want %v", got, want)
					}
				})
			})
		}
	}
}

// TestLostPeerConnection: a partition in the middle is seen, and healed.
func TestLostPeerConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := virtual.New(t, virtual.Config{RTT: 50 * time.Millisecond, STUN: true})
		a, b := newPeer(t, n, virtual.PortRestricted), newPeer(t, n, virtual.PortRestricted)
		signal(t, a, b)
		a.await(webrtc.PeerConnectionStateConnected)
		if err := n.SetLoss(100, 0); err != nil {
			t.Fatal(err)
		}
		a.await(webrtc.PeerConnectionStateDisconnected)
		if err := n.SetLoss(0, 0); err != nil {
			t.Fatal(err)
		}
		a.await(webrtc.PeerConnectionStateConnected)
	})
}

// connects says whether two new peers end up connected or failed.
func connects(t *testing.T, n *virtual.Net, natA, natB virtual.NAT) bool {
	t.Helper()
	a, b := newPeer(t, n, natA), newPeer(t, n, natB)
	signal(t, a, b)
	for {
		switch s := <-a.states; s {
		case webrtc.PeerConnectionStateConnected:
			return true
		case webrtc.PeerConnectionStateFailed, webrtc.PeerConnectionStateClosed:
			return false
		}
	}
}

// peer is a PeerConnection on a host of its own.
type peer struct {
	t *testing.T
	*webrtc.PeerConnection
	host   *virtual.Host
	states chan webrtc.PeerConnectionState
}

func newPeer(t *testing.T, n *virtual.Net, nat virtual.NAT) *peer {
	t.Helper()
	return newPeerWith(t, n, nat, webrtc.Configuration{ICEServers: []webrtc.ICEServer{{URLs: []string{n.STUNServer()}}}})
}

func newPeerWith(t *testing.T, n *virtual.Net, nat virtual.NAT, cfg webrtc.Configuration) *peer {
	t.Helper()
	host, err := n.Host(nat)
	if err != nil {
		t.Fatal(err)
	}
	var se webrtc.SettingEngine
	se.SetNet(host)
	se.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
	se.LoggerFactory = &logging.DefaultLoggerFactory{Writer: io.Discard}
	// Otherwise one side's close closes the other while it is closing itself, and
	// the bubble hangs.
	se.DisableCloseByDTLS(true)
	pc, err := webrtc.NewAPI(webrtc.WithSettingEngine(se)).NewPeerConnection(cfg)
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{t: t, PeerConnection: pc, host: host, states: make(chan webrtc.PeerConnectionState, 16)}
	pc.OnConnectionStateChange(func(s webrtc.PeerConnectionState) { p.states <- s })
	t.Cleanup(func() {
		if err := pc.GracefulClose(); err != nil {
			t.Error(err)
		}
		synctest.Wait()
	})
	return p
}

// await returns when the connection is in a state, which must come within a
// minute.
func (p *peer) await(want webrtc.PeerConnectionState) {
	p.t.Helper()
	timeout := time.After(forever)
	for {
		select {
		case s := <-p.states:
			if s == want {
				return
			}
		case <-timeout:
			p.t.Fatalf("never %v; it is %v", want, p.ConnectionState())
		}
	}
}

// signal carries the offer and the answer, each with all candidates in it.
func signal(t *testing.T, a, b *peer) {
	t.Helper()
	if _, err := a.CreateDataChannel("test", nil); err != nil {
		t.Fatal(err)
	}
	offer, err := a.CreateOffer(nil)
	if err != nil {
		t.Fatal(err)
	}
	gathered := webrtc.GatheringCompletePromise(a.PeerConnection)
	if err := a.SetLocalDescription(offer); err != nil {
		t.Fatal(err)
	}
	<-gathered
	if err := b.SetRemoteDescription(*a.LocalDescription()); err != nil {
		t.Fatal(err)
	}
	answer, err := b.CreateAnswer(nil)
	if err != nil {
		t.Fatal(err)
	}
	gathered = webrtc.GatheringCompletePromise(b.PeerConnection)
	if err := b.SetLocalDescription(answer); err != nil {
		t.Fatal(err)
	}
	<-gathered
	if err := a.SetRemoteDescription(*b.LocalDescription()); err != nil {
		t.Fatal(err)
	}
}
