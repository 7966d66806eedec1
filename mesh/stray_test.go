package mesh

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/pion/webrtc/v4"

	"github.com/infrafabric/agentmesh/internal/virtual"
	"github.com/infrafabric/agentmesh/keys"
)

// TestStrayChannels: a trusted agent opens data channels that were not agreed, or
// sends outside the one that was. That ends the session as a protocol error, and
// whatever it opens meanwhile is not held.
func TestStrayChannels(t *testing.T) {
	for name, stray := range map[string]func(pc *webrtc.PeerConnection) error{
		"a channel": func(pc *webrtc.PeerConnection) error { return openChannels(pc, 1) },
		"several":   func(pc *webrtc.PeerConnection) error { return openChannels(pc, 10) },
		"data without a channel": func(pc *webrtc.PeerConnection) error {
			negotiated, id := true, uint16(7)
			c, err := pc.CreateDataChannel("x", &webrtc.DataChannelInit{Negotiated: &negotiated, ID: &id})
			if err != nil {
				return err
			}
			c.OnOpen(func() {
				if raw, err := c.Detach(); err == nil {
					raw.Write([]byte("for nobody"))
				}
			})
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, hostileNet, func(w *world) {
				a, b := w.agent("agent-a", virtual.Open), w.agent("agent-b", virtual.Open)
				p, q := w.pair(a, b)
				if err := stray(p.session().conn.(*webrtcConn).pc); err != nil {
					t.Fatal(err)
				}
				select {
				case <-q.Context().Done():
				case <-time.After(5 * time.Second):
					t.Fatal("the session lives on")
				}
				if err := context.Cause(q.Context()); !errors.Is(err, ErrProtocol) {
					t.Errorf("the Peer ended with %v", err)
				}
				c, d := w.pair(w.agent("agent-c", virtual.Open), b)
				w.say(c, d, "to others")
			})
		})
	}
}

// openChannels opens channels with long labels.
func openChannels(pc *webrtc.PeerConnection, count int) error {
	for range count {
		if _, err := pc.CreateDataChannel(strings.Repeat("L", 8000), nil); err != nil {
			return err
		}
	}
	return nil
}

// TestFloodOfChannels: of however many, pion holds the one that is looked at and those
// that wait in its queue. Without the look all 2,000 were held.
func TestFloodOfChannels(t *testing.T) {
	inWorld(t, hostileNet, func(w *world) {
		a, b := w.agent("agent-a", virtual.Open), w.agent("agent-b", virtual.Open)
		p, q := w.pair(a, b)
		held := q.session().conn.(*webrtcConn)
		pc := p.session().conn.(*webrtcConn).pc
		for range 100 {
			if openChannels(pc, 20) != nil {
				break // the session has ended
			}
			time.Sleep(100 * time.Millisecond)
		}
		for _, s := range held.pc.GetStats() {
			if s, ok := s.(webrtc.PeerConnectionStats); ok && s.DataChannelsAccepted > 17 {
				t.Fatalf("%d channels were taken in", s.DataChannelsAccepted)
			}
		}
		c, d := w.pair(w.agent("agent-c", virtual.Open), b)
		w.say(c, d, "to others")
	})
}

// TestDescriptionOfMedia: nobody asked for audio or video.
func TestDescriptionOfMedia(t *testing.T) {
	fp := keys.Fingerprint{1, 2, 3}
	sdp := describe(fp, 1) + "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n"
	decode := func(sdp string) error {
		_, err := decodeDescription((&descriptionBody{SDP: sdp, Fingerprint: fp}).encode())
		return err
	}
	if err := decode(sdp); err != nil {
		t.Fatal(err)
	}
	for _, m := range []string{
		"m=audio 9 UDP/TLS/RTP/SAVPF 111\r\n", "m=video 9 UDP/TLS/RTP/SAVPF 96\r\n", "m=applications 9 x y\r\n", "m=\n", "\rm=audio 9 UDP/TLS/RTP/SAVPF 111\r",
	} {
		if err := decode(sdp + m); !errors.Is(err, ErrProtocol) {
			t.Errorf("%q: %v", m, err)
		}
	}
}
