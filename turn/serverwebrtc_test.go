package turn

import (
	"fmt"
	"io"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pion/ice/v4"
	"github.com/pion/logging"
	"github.com/pion/webrtc/v4"

	"github.com/infrafabric/agentmesh/internal/virtual"
)

// TestServerCarriesWebRTC: two peers behind NATs, for whom there is no direct path,
// talk through one server for more than two virtual hours: permissions and
// allocations are renewed, and nonces grow stale.
func TestServerCarriesWebRTC(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newServerWorld(t, func(c *ServerConfig) { c.Secrets = []string{testSecret} })
		a, b := w.peer("one"), w.peer("two")
		channel, err := a.CreateDataChannel("test", nil)
		check(t, err)
		opened, heard := make(chan struct{}), make(chan string, 1)
		channel.OnOpen(func() { close(opened) })
		b.OnDataChannel(func(d *webrtc.DataChannel) {
			d.OnMessage(func(m webrtc.DataChannelMessage) { heard <- string(m.Data) })
		})
		introduce(t, a, b)
		<-opened
		for n := range 13 {
			text := fmt.Sprint("hello ", n)
			check(t, channel.SendText(text))
			select {
			case got := <-heard:
				if got != text {
					t.Errorf("heard %q instead of %q", got, text)
				}
			case <-time.After(10 * time.Second):
				t.Fatalf("nothing after %d minutes: %v", n*10, a.ConnectionState())
			}
			time.Sleep(10 * time.Minute)
		}
		st := w.server.Stats()
		if st.Allocations != 2 || st.Allocated != 2 || st.AuthFailures != 0 || st.PeersRefused != 0 || st.Unanswered != 0 {
			t.Errorf("counted %+v", st)
		}
	})
}

// peer is a PeerConnection behind a NAT that may use the relay only.
//
// bubble: as newServerWorld.
func (w *serverWorld) peer(user string) *webrtc.PeerConnection {
	w.t.Helper()
	host, err := w.net.Host(virtual.Symmetric)
	check(w.t, err)
	var se webrtc.SettingEngine
	se.SetNet(host)
	se.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
	se.LoggerFactory = &logging.DefaultLoggerFactory{Writer: io.Discard}
	se.DisableCloseByDTLS(true) // or closing both may hang the bubble
	name, password := rest(w.t, testSecret, user, 3*time.Hour)
	pc, err := webrtc.NewAPI(webrtc.WithSettingEngine(se)).NewPeerConnection(webrtc.Configuration{
		ICETransportPolicy: webrtc.ICETransportPolicyRelay,
		ICEServers: []webrtc.ICEServer{{
			URLs: []string{fmt.Sprintf("turn:%v?transport=udp", netip.MustParseAddrPort(w.server.addr().String()))}, Username: name, Credential: password,
		}},
	})
	check(w.t, err)
	w.t.Cleanup(func() {
		if err := pc.GracefulClose(); err != nil {
			w.t.Error(err)
		}
		synctest.Wait()
	})
	return pc
}

// introduce carries the offer and the answer, each with all candidates in it.
func introduce(t *testing.T, a, b *webrtc.PeerConnection) {
	t.Helper()
	offer, err := a.CreateOffer(nil)
	check(t, err)
	gathered := webrtc.GatheringCompletePromise(a)
	check(t, a.SetLocalDescription(offer))
	<-gathered
	check(t, b.SetRemoteDescription(*a.LocalDescription()))
	answer, err := b.CreateAnswer(nil)
	check(t, err)
	gathered = webrtc.GatheringCompletePromise(b)
	check(t, b.SetLocalDescription(answer))
	<-gathered
	check(t, a.SetRemoteDescription(*b.LocalDescription()))
}
