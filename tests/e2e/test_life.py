"""The page in the world: keys, path prefixes, other tabs, a server that goes away."""

from conftest import choose, handle, job_id, on_screen, settled

KEY = "a-key-for-the-tests-schlüssel-“3”"


def test_a_second_tab(open_page, server, photo):
    page = open_page()
    choose(page, photo)
    other = open_page("#light=directional:0.9,0,0.4", context=page.context)
    choose(other, photo)
    assert job_id(page) != job_id(other)
    for tab in (page, other, page):
        tab.bring_to_front()
        handle(tab, 1).focus()
        tab.keyboard.press("Shift+ArrowUp")
        settled(tab)
    assert "directional:-0.6,0.6,0.7" in page.url
    assert "directional:0.9,0.1,0.4" in other.url
    page.get_by_role("button", name="Delete").click()
    page.wait_for_selector("body[data-state=empty]")
    other.get_by_role("button", name="Ring").click()
    settled(other)
    assert server.call(f"job/{job_id(other)}")[0] == 200


def test_the_server_stops_and_starts_under_the_page(open_page, serve, photo):
    own = serve()
    page = open_page(server=own, live=False)
    page.watch.expect("Failed to load resource", "ERR_CONNECTION_REFUSED")
    choose(page, photo)
    before = on_screen(page)
    own.stop()
    page.get_by_role("button", name="From below").click()
    page.locator("#toast").get_by_text("The server is not responding").wait_for()
    high = slice(0, before.shape[0] // 2)  # above the message
    assert abs(on_screen(page) - before)[high].mean() < 1  # the picture stays
    own.start()
    page.locator("#toast").get_by_text("The server is back").wait_for()
    settled(page)
    assert abs(on_screen(page) - before)[high].mean() > 1


def test_the_job_is_gone_from_the_server(open_page, server, photo):
    page = open_page(live=False)
    page.watch.expect("Failed to load resource")
    choose(page, photo)
    old = job_id(page)
    server.call(f"job/{old}", method="DELETE")
    page.get_by_role("button", name="Rim").click()
    page.get_by_role("button", name="Upload it again").click()
    settled(page)
    assert job_id(page) != old


def test_a_server_with_keys(open_page, serve, photo):
    own = serve(api_keys=KEY)
    own.headers = {"Authorization": f"Bearer {KEY}".encode().decode("latin-1")}  # UTF-8 on the wire
    page = open_page(server=own)
    page.watch.expect("Failed to load resource")
    seen = []
    page.on("request", lambda r: seen.append(r.url))
    field = page.get_by_label("API key", exact=True).and_(page.locator("input"))
    field.fill("wrong")
    page.get_by_role("button", name="Use key").click()
    words = own.json("models", headers={"Authorization": "Bearer wrong"})["detail"]
    page.get_by_role("alert").filter(has_text=words).wait_for()
    field.fill(KEY)
    page.keyboard.press("Enter")
    page.locator("#key-dialog").wait_for(state="hidden")
    choose(page, photo)
    page.get_by_label("Normals", exact=True).check()
    page.get_by_label("Relit", exact=True).check()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download").click()
    assert download.value.path().read_bytes() == own.call(f"download/{job_id(page)}/relit.png")[1]
    page.reload()  # the key lasts as long as the tab
    settled(page)
    assert not any(KEY in url for url in [*seen, page.url])
    page.get_by_role("button", name="As code").click()
    page.get_by_label("curl", exact=True).check()
    assert KEY not in page.locator("#snippet").inner_text()
    assert "RELIGHT_KEY" in page.locator("#snippet").inner_text()


def test_behind_a_path_prefix(open_page, server, photo):
    page = open_page()
    page.goto("about:blank")
    beyond = []

    def strip(route):
        route.continue_(url=route.request.url.replace("/some/prefix/", "/"))

    page.route("**/some/prefix/**", strip)
    page.on(
        "request", lambda r: "/some/prefix/" not in r.url and not r.url.startswith("blob:") and beyond.append(r.url)
    )
    page.goto(server.url + "some/prefix/")
    choose(page, photo)
    page.get_by_label("Depth", exact=True).check()
    with page.expect_download():
        page.get_by_role("button", name="Download").click()
    assert not beyond
