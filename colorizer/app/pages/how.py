"""How it works: shows one of the chapters, each of which explains one idea with something to move."""

import streamlit as st

from colorizer.app.chapters import CHAPTERS

_KEY, _SHOWN = "chapter", "shown-chapter"

titles = {chapter.slug: f"{number} · {chapter.title}" for number, chapter in enumerate(CHAPTERS, 1)}
st.title("How it works")
# The address has the short name of a chapter; a bound widget would write its whole title. A new address wins over the
# session, so that links and the Back button of the browser work.
wanted = st.query_params.get(_KEY)
if wanted in titles and wanted != st.session_state.get(_SHOWN):
    st.session_state[_KEY] = wanted
st.session_state.setdefault(_KEY, CHAPTERS[0].slug)
slug = st.pills(
    "Chapter",
    list(titles),
    required=True,
    format_func=titles.get,
    key=_KEY,
    label_visibility="collapsed",
    wrap=True,
)
st.query_params[_KEY] = st.session_state[_SHOWN] = slug
place = list(titles).index(slug)
chapter = CHAPTERS[place]
st.header(chapter.title, anchor=False)
st.markdown(chapter.text)
chapter.show()
with st.expander("More"):
    st.markdown(chapter.more)
with st.container(horizontal=True):
    for label, icon, other in (("Back", "arrow_back", place - 1), ("Next", "arrow_forward", place + 1)):
        if 0 <= other < len(CHAPTERS):
            words, icon = f"{label}: {CHAPTERS[other].title}", f":material/{icon}:"
            go_on, target = st.session_state.update, {_KEY: CHAPTERS[other].slug}
            st.button(words, key=f"chapter-{label}", icon=icon, on_click=go_on, args=(target,))
