// Command bare is what minimal is compared with: two pion PeerConnections in one
// process that exchange a message over a data channel, and nothing else. What
// minimal is larger by is what the SDK costs beyond WebRTC itself.
package main

import (
	"fmt"
	"os"

	"github.com/pion/webrtc/v4"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bare:", err)
		os.Exit(1)
	}
}

func run() error {
	var ends [2]*webrtc.PeerConnection
	for i := range ends {
		pc, err := webrtc.NewPeerConnection(webrtc.Configuration{})
		if err != nil {
			return err
		}
		defer pc.Close()
		ends[i] = pc
	}
	a, b := ends[0], ends[1]
	said := make(chan string)
	b.OnDataChannel(func(ch *webrtc.DataChannel) {
		ch.OnMessage(func(m webrtc.DataChannelMessage) { said <- string(m.Data) })
	})
	ch, err := a.CreateDataChannel("bare", nil)
	if err != nil {
		return err
	}
	ch.OnOpen(func() {
		if err := ch.SendText("hello"); err != nil {
			fmt.Fprintln(os.Stderr, "bare:", err)
		}
	})
	offer, err := a.CreateOffer(nil)
	if err != nil {
		return err
	}
	if err := describe(a, offer); err != nil {
		return err
	}
	if err := b.SetRemoteDescription(*a.LocalDescription()); err != nil {
		return err
	}
	answer, err := b.CreateAnswer(nil)
	if err != nil {
		return err
	}
	if err := describe(b, answer); err != nil {
		return err
	}
	if err := a.SetRemoteDescription(*b.LocalDescription()); err != nil {
		return err
	}
	fmt.Println(<-said)
	return nil
}

// describe sets a local description and waits for its candidates.
func describe(pc *webrtc.PeerConnection, d webrtc.SessionDescription) error {
	gathered := webrtc.GatheringCompletePromise(pc)
	if err := pc.SetLocalDescription(d); err != nil {
		return err
	}
	<-gathered
	return nil
}
