package signaling

import "testing"

func TestServerName(t *testing.T) {
	for in, want := range map[string]string{
		"S1.Example": "s1.example", "s1:443": "s1", "s1:80": "s1", "s1:8443": "s1:8443", "s1:08443": "s1:8443",
		"s1:": "s1", "s1.": "s1", "s1.:8443": "s1:8443", "a_b": "a_b", "127.0.0.1:80": "127.0.0.1",
		"[::1]:443": "[::1]", "[::1]:8080": "[::1]:8080", "[::1]:": "[::1]", "[0:0::0001]:80": "[::1]", "::1": "[::1]",
		"[FE80::1%Eth0]:8443": "[fe80::1]:8443", "fe80::1%eth0": "[fe80::1]",
		"bücher.example:8443": "xn--bcher-kva.example:8443", "BÜCHER.example": "xn--bcher-kva.example",
		"xn--bcher-kva.example": "xn--bcher-kva.example", "例え。テスト": "xn--r8jz45g.xn--zckzah",
		// No hosts.
		"": "", ":80": "", ".": "", "s1/x": "", "u@s1": "", "s 1": "", "s1%eth0": "", "[::1": "", "[s1]": "",
		"a:b:c": "", "a\x00": "", "\u202e.example": "",
	} {
		got := serverName(in)
		if got != want {
			t.Errorf("serverName(%q) = %q, want %q", in, got, want)
		}
		if again := serverName(got); again != got {
			t.Errorf("serverName(%q) = %q and then %q", in, got, again)
		}
	}
}
