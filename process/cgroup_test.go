// SPDX-License-Identifier: Apache-2.0

package process

import (
	"strings"
	"testing"
)

const (
	hexID   = "3fd2b8b8a4a3c7ed1dd8d9ca0c7d7a4d3c6e8cd8dd4f6e0e6c7a8f1b2c3d4e5f"
	otherID = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
)

func TestParseCgroup(t *testing.T) {
	const pod = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod0d5f8a9e_1b2c_4d3e_8f90_a1b2c3d4e5f6.slice"
	for _, tt := range []struct{ name, in, path, id string }{
		{"host, v2", "0::/user.slice/user-1000.slice/session-3.scope\n", "/user.slice/user-1000.slice/session-3.scope", ""},
		{"root, v2", "0::/\n", "/", ""},
		{"empty", "", "", ""},
		{"service", "0::/system.slice/docker.service\n", "/system.slice/docker.service", ""},
		{"docker, systemd driver", "0::/system.slice/docker-ID.scope\n", "/system.slice/docker-ID.scope", hexID},
		{"docker, cgroupfs driver", "12:pids:/docker/ID\n1:name=systemd:/docker/ID\n0::/system.slice/containerd.service\n", "/docker/ID", hexID},
		{"systemd inside docker", "0::/docker/ID/system.slice/nginx.service\n", "/docker/ID/system.slice/nginx.service", hexID},
		{"kind: a pod inside docker", "0::/docker/OTHER/kubelet.slice/kubelet-kubepods.slice/cri-containerd-ID.scope\n",
			"/docker/OTHER/kubelet.slice/kubelet-kubepods.slice/cri-containerd-ID.scope", hexID},
		{"kubernetes, containerd", "0::" + pod + "/cri-containerd-ID.scope\n", pod + "/cri-containerd-ID.scope", hexID},
		{"kubernetes, containerd, cgroupfs", "11:memory:/kubepods/besteffort/pod0d5f8a9e-1b2c-4d3e-8f90-a1b2c3d4e5f6/ID\n",
			"/kubepods/besteffort/pod0d5f8a9e-1b2c-4d3e-8f90-a1b2c3d4e5f6/ID", hexID},
		{"kubernetes, drivers disagree", "0::/system.slice/containerd.service/kubepods-burstable-pod0d5f.slice:cri-containerd:ID\n",
			"/system.slice/containerd.service/kubepods-burstable-pod0d5f.slice:cri-containerd:ID", hexID},
		{"cri-o", "0::" + pod + "/crio-ID.scope/container\n", pod + "/crio-ID.scope/container", hexID},
		{"cri-o's monitor", "0::" + pod + "/crio-conmon-ID.scope\n", pod + "/crio-conmon-ID.scope", ""},
		{"podman, rootless", "0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope/container\n",
			"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope/container", hexID},
		{"podman's monitor", "0::/machine.slice/libpod-conmon-ID.scope\n", "/machine.slice/libpod-conmon-ID.scope", ""},
		{"podman, cgroupfs", "0::/libpod_parent/libpod-ID\n", "/libpod_parent/libpod-ID", hexID},
		{"ECS on EC2", "9:memory:/ecs/7c8d9e0f1a2b3c4d5e6f708192a3b4c5/ID\n", "/ecs/7c8d9e0f1a2b3c4d5e6f708192a3b4c5/ID", hexID},
		{"ECS on Fargate", "9:memory:/ecs/7c8d9e0f1a2b3c4d5e6f708192a3b4c5/7c8d9e0f1a2b3c4d5e6f708192a3b4c5-2823423423\n",
			"/ecs/7c8d9e0f1a2b3c4d5e6f708192a3b4c5/7c8d9e0f1a2b3c4d5e6f708192a3b4c5-2823423423", "7c8d9e0f1a2b3c4d5e6f708192a3b4c5-2823423423"},
		{"ECS task only", "9:memory:/ecs/7c8d9e0f1a2b3c4d5e6f708192a3b4c5\n", "/ecs/7c8d9e0f1a2b3c4d5e6f708192a3b4c5", ""},
		{"garden", "5:memory:/garden/6f265890-5165-7fab-6b52-18d1\n", "/garden/6f265890-5165-7fab-6b52-18d1", "6f265890-5165-7fab-6b52-18d1"},
		{"buildkit", "0::/system.slice/docker.service/buildkit/q9zrjzj0kcmyhj7s4xwqvo4aj\n",
			"/system.slice/docker.service/buildkit/q9zrjzj0kcmyhj7s4xwqvo4aj", "q9zrjzj0kcmyhj7s4xwqvo4aj"},
		{"systemd-nspawn", `0::/machine.slice/machine-my\x2dbox.scope/payload/system.slice/cron.service` + "\n",
			`/machine.slice/machine-my\x2dbox.scope/payload/system.slice/cron.service`, "my-box"},
		{"systemd-nspawn unit", "0::/machine.slice/systemd-nspawn@box.service/payload\n", "/machine.slice/systemd-nspawn@box.service/payload", "box"},
		{"a virtual machine", `0::/machine.slice/machine-qemu\x2d1\x2dvm.scope/libvirt/vcpu0` + "\n",
			`/machine.slice/machine-qemu\x2d1\x2dvm.scope/libvirt/vcpu0`, ""},
		{"lxc", "0::/lxc.payload.web1/system.slice/ssh.service\n", "/lxc.payload.web1/system.slice/ssh.service", "web1"},
		{"lxc's monitor", "0::/lxc.monitor.web1\n", "/lxc.monitor.web1", ""},
		{"old lxc", "4:memory:/lxc/web1\n", "/lxc/web1", "web1"},
		{"hybrid: v2 says nothing", "9:name=systemd:/\n4:memory:/process_api/18ea1a8864bee71120c5848d201cb458\n1:cpu:/\n0::/\n",
			"/process_api/18ea1a8864bee71120c5848d201cb458", ""},
		{"hybrid: systemd before controllers", "4:memory:/user.slice\n1:name=systemd:/user.slice/user-0.slice\n0::/\n", "/user.slice/user-0.slice", ""},
		{"seen from another cgroup namespace", "0::/../cri-containerd-ID.scope\n", "/../cri-containerd-ID.scope", hexID},
		{"63 digits are no ID", "0::/docker/" + hexID[1:] + "\n", "/docker/" + hexID[1:], ""},
		{"capitals are no ID", "0::/docker/" + strings.ToUpper(hexID) + "\n", "/docker/" + strings.ToUpper(hexID), ""},
		{"a colon in the path", "0::/a:b\n", "/a:b", ""},
		{"garbage", "x\n0::\n::::\n0:/\n", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ids := strings.NewReplacer("ID", hexID, "OTHER", otherID)
			path, id := parseCgroup([]byte(ids.Replace(tt.in)))
			if path != ids.Replace(tt.path) || id != tt.id {
				t.Errorf("parseCgroup(%q) = %q, %q; want %q, %q", tt.in, path, id, ids.Replace(tt.path), tt.id)
			}
		})
	}
}

func FuzzCgroup(f *testing.F) {
	f.Add([]byte("0::/system.slice/docker-" + hexID + ".scope\n"))
	f.Add([]byte("9:name=systemd:/\n4:memory:/lxc/a\n0::/machine-.scope/systemd-nspawn@.service\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		path, id := parseCgroup(b)
		if !strings.Contains(unescapeUnit(path), id) {
			t.Errorf("ID %q is not in %q", id, path)
		}
	})
}
